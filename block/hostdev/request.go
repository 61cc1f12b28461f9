package hostdev

import (
	"encoding/binary"
	"syscall"

	"torpor/block"
)

// Sizes of linux/fuse.h: the header of requests, the largest body that is
// followed by data, the header of answers. All integers are in the order of
// the machine, which is little-endian.
const (
	headerBytes       = 40
	bodyBytes         = 40
	answerHeaderBytes = 16
)

// opcode is what a request wants.
type opcode uint32

const (
	opLookup      opcode = 1
	opForget      opcode = 2
	opGetattr     opcode = 3
	opOpen        opcode = 14
	opRead        opcode = 15
	opWrite       opcode = 16
	opStatfs      opcode = 17
	opRelease     opcode = 18
	opFsync       opcode = 20
	opInit        opcode = 26
	opInterrupt   opcode = 36
	opNotifyReply opcode = 41
	opBatchForget opcode = 42
	opFallocate   opcode = 43
)

// Modes of fallocate(2), from linux/falloc.h, as the loop driver uses them.
const (
	keepSize  = 0x01
	punchHole = 0x02 | keepSize
	zeroRange = 0x10 | keepSize
)

// request is the header of a request, and its body.
type request struct {
	op     opcode
	unique uint64
	body   []byte
}

func parseRequest(p []byte) request {
	return request{
		op:     opcode(binary.LittleEndian.Uint32(p[4:])),
		unique: binary.LittleEndian.Uint64(p[8:]),
		body:   p[headerBytes:],
	}
}

// fields of bodies; all have a file handle, which is not used here, in front.

func (r request) offset() block.Offset {
	return block.Offset(binary.LittleEndian.Uint64(r.body[8:]))
}

// lenBytes is that of reads and writes.
func (r request) lenBytes() int { return int(binary.LittleEndian.Uint32(r.body[16:])) }

// writable says whether all that a request wants to write has come with it.
func (r request) writable() bool { return len(r.body) == bodyBytes+r.lenBytes() }

// allocation is the range and the mode of fallocate.
func (r request) allocation() (block.Range, uint32) {
	length := int64(binary.LittleEndian.Uint64(r.body[16:]))
	return block.Range{Start: r.offset(), LenBytes: length}, binary.LittleEndian.Uint32(r.body[24:])
}

// putAnswerHeader writes the header of an answer to p, which is the answer.
func putAnswerHeader(p []byte, unique uint64, errno syscall.Errno) {
	binary.LittleEndian.PutUint32(p, uint32(len(p)))
	binary.LittleEndian.PutUint32(p[4:], uint32(-int32(errno)))
	binary.LittleEndian.PutUint64(p[8:], unique)
}
