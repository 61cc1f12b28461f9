package nbd

import (
	"encoding/binary"
	"sync"
)

// request is a request on its way: read, handled by a device, answered, until
// its reply is written. It belongs to one goroutine at a time.
type request struct {
	header
	refused   errno   // set if it must not reach the device
	buffer    *buffer // of its data, or nil
	costBytes int     // its share of the connection's limit

	heads   []byte   // what of the reply is not in the buffer
	vectors [][]byte // the reply
}

// minCostBytes accounts for what a request without data holds.
const minCostBytes = 4096

// statusCostBytes is that of a block status request, whose reply may be long.
const statusCostBytes = maxExtents * 40

func costOf(h header) int {
	if h.command == commandBlockStatus {
		return statusCostBytes
	}
	return max(h.bufferBytes(), minCostBytes)
}

var requestPool = sync.Pool{New: func() any { return &request{heads: make([]byte, 0, 64)} }}

func newRequest(h header, refused errno, costBytes int) *request {
	r := requestPool.Get().(*request)
	r.header, r.refused, r.costBytes = h, refused, costBytes
	if n := h.bufferBytes(); refused == 0 && n > 0 {
		r.buffer = newBuffer(n)
	}
	return r
}

func (r *request) release() {
	if r.buffer != nil {
		r.buffer.release()
		r.buffer = nil
	}
	r.heads = r.heads[:0]
	clear(r.vectors)
	r.vectors = r.vectors[:0]
	if cap(r.heads) <= 4096 {
		requestPool.Put(r)
	}
}

func (r *request) data() []byte {
	if r.buffer == nil {
		return nil
	}
	return r.buffer.data(int(r.lenBytes))
}

// ok answers a request that returns nothing.
func (r *request) ok() {
	r.heads = appendSimpleReply(r.heads[:0], 0, r.cookie)
	r.vectors = append(r.vectors[:0], r.heads)
}

// fail answers with an error, and a text if the client can take one.
func (r *request) fail(e errno, text string, structured bool) {
	if !structured {
		r.heads = appendSimpleReply(r.heads[:0], e, r.cookie)
		r.vectors = append(r.vectors[:0], r.heads)
		return
	}
	text = text[:min(len(text), maxNameBytes)]
	b := appendChunk(r.heads[:0], chunkDone, chunkError, r.cookie, 6+len(text))
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	r.heads = append(b, text...)
	r.vectors = append(r.vectors[:0], r.heads)
}

// withData answers a read by the whole buffer.
func (r *request) withData(structured bool) {
	var space [chunkHeadBytes + 8]byte
	var head []byte
	switch {
	case !structured:
		head = appendSimpleReply(space[:0], 0, r.cookie)
	case r.lenBytes == 0:
		head = appendChunk(space[:0], chunkDone, chunkNone, r.cookie, 0)
	default:
		head = appendChunk(space[:0], chunkDone, chunkOffsetData, r.cookie, 8+int(r.lenBytes))
		head = binary.BigEndian.AppendUint64(head, r.offset)
	}
	if r.buffer == nil {
		r.heads = append(r.heads[:0], head...)
		r.vectors = append(r.vectors[:0], r.heads)
		return
	}
	r.vectors = append(r.vectors[:0], r.buffer.with(head, int(r.lenBytes)))
}

// appendSimpleReply makes: magic 4 | error 4 | cookie 8.
func appendSimpleReply(b []byte, e errno, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, magicSimpleReply)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return binary.BigEndian.AppendUint64(b, cookie)
}

// appendChunk makes: magic 4 | flags 2 | kind 2 | cookie 8 | length 4.
func appendChunk(b []byte, flags, kind uint16, cookie uint64, lenBytes int) []byte {
	b = binary.BigEndian.AppendUint32(b, magicChunk)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	return binary.BigEndian.AppendUint32(b, uint32(lenBytes))
}
