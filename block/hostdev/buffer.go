package hostdev

import (
	"sync"

	"torpor/block"
)

// maxDataBytes is the most that one request reads or writes.
const maxDataBytes = 1 << 20

// buffer holds a request and its answer. Data begins at a multiple of 4096, in
// front of it are the headers of a request to write, or of an answer to a
// request to read:
//
//	... | request header, 40 | write_in or read_in, 40 | data, 1 MiB | answer
//	...                           | answer header, 16  |
type buffer struct {
	bytes []byte // aligned
}

const (
	dataAt      = block.BlockBytes
	answerAt    = dataAt + maxDataBytes // for answers without data
	answerBytes = block.BlockBytes
)

var buffers = sync.Pool{New: func() any { return &buffer{bytes: block.AlignedBuffer(answerAt + answerBytes)} }}

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) give() { buffers.Put(b) }

// request is where the next request is read to.
func (b *buffer) request() []byte { return b.bytes[dataAt-headerBytes-bodyBytes : answerAt] }

// data is what follows the headers of a request to write.
func (b *buffer) data(lenBytes int) []byte { return b.bytes[dataAt : dataAt+lenBytes] }

// dataAnswer is an answer header, to be filled, and the data behind it.
func (b *buffer) dataAnswer(lenBytes int) []byte {
	return b.bytes[dataAt-answerHeaderBytes : dataAt+lenBytes]
}

// answer is room for an answer without data.
func (b *buffer) answer() []byte { return b.bytes[answerAt:] }
