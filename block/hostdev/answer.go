package hostdev

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"torpor/block"
)

// answer serves the request of n bytes in b. An error is one of the connection.
func (s *server) answer(b *buffer, n int) error {
	if n < headerBytes {
		return fmt.Errorf("parse FUSE request: %d bytes", n)
	}
	r := parseRequest(b.request()[:n])
	var err error
	switch r.op {
	case opRead:
		lenBytes := s.readable(r)
		return s.answerRead(b, r.unique, lenBytes, s.dev.ReadAt(b.data(lenBytes), r.offset()))
	case opWrite:
		if !r.writable() {
			return s.conn.Write(emptyAnswer(b, r.unique, syscall.EINVAL))
		}
		lenBytes := r.lenBytes()
		return s.answerWrite(b, r.unique, lenBytes, s.dev.WriteAt(b.data(lenBytes), r.offset(), 0))
	case opFsync:
		err = s.dev.Flush()
	case opFallocate:
		err = s.allocate(r.allocation())
	case opForget, opBatchForget, opInterrupt, opNotifyReply:
		return nil // which want no answer; requests are not interrupted
	case opInit, opLookup, opGetattr, opOpen, opStatfs, opRelease:
		return s.answerRest(b, n)
	default:
		return s.conn.Write(emptyAnswer(b, r.unique, syscall.ENOSYS))
	}
	return s.conn.Write(emptyAnswer(b, r.unique, errnoOf(err)))
}

// readable is how much of what a request wants to read there is.
func (s *server) readable(r request) int {
	return int(max(0, min(int64(r.lenBytes()), maxDataBytes, s.sizeBytes.Load()-int64(r.offset()))))
}

func (s *server) answerRead(b *buffer, unique uint64, lenBytes int, err error) error {
	if err != nil {
		return s.conn.Write(emptyAnswer(b, unique, errnoOf(err)))
	}
	answer := b.dataAnswer(lenBytes) // overwrites the request
	putAnswerHeader(answer, unique, 0)
	return s.conn.Write(answer)
}

func (s *server) answerWrite(b *buffer, unique uint64, lenBytes int, err error) error {
	if err != nil {
		return s.conn.Write(emptyAnswer(b, unique, errnoOf(err)))
	}
	answer := b.answer()[:answerHeaderBytes+8]
	putAnswerHeader(answer, unique, 0)
	binary.LittleEndian.PutUint64(answer[answerHeaderBytes:], uint64(lenBytes)) // size, padding
	return s.conn.Write(answer)
}

// allocate serves fallocate. The loop driver punches holes both to discard and
// to write zeros, so what is punched must read as zeros. Without Info.Discards
// it is refused: the kernel does not discard then, and writes zeros.
func (s *server) allocate(r block.Range, mode uint32) error {
	switch {
	case mode == punchHole && s.discards:
		return s.dev.Discard(r, 0)
	case mode == zeroRange:
		return s.dev.Zero(r, block.KeepAllocated)
	}
	return block.ErrUnsupported
}

// answerRest has a request answered by the tree.
func (s *server) answerRest(b *buffer, n int) error {
	answer := b.answer()
	length, status := s.rest.HandleRequest([][]byte{b.request()[:n]}, [][]byte{answer})
	if !status.Ok() {
		return fmt.Errorf("answer FUSE request: %w", syscall.Errno(status))
	}
	if length == 0 {
		return nil
	}
	return s.conn.Write(answer[:length])
}

func emptyAnswer(b *buffer, unique uint64, errno syscall.Errno) []byte {
	answer := b.answer()[:answerHeaderBytes]
	putAnswerHeader(answer, unique, errno)
	return answer
}

// errnoOf is what the kernel is told. It would never ask again after ENOSYS,
// and takes numbers of 512 and more for nonsense.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno := block.Errno(err); errno != syscall.ENOSYS && errno > 0 && errno < 512 {
		return errno
	}
	return syscall.EIO
}
