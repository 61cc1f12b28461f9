package nbd

import (
	"math/bits"
	"sync"

	"torpor/block"
)

// buffer is memory for the data of one request. In front of the data, which is
// aligned for direct I/O, is a block whose end takes the head of the reply, so
// that both go out in one write.
type buffer struct {
	memory []byte
	class  int
}

const smallestBuffer = 4096

// bufferPools hold unused buffers by the binary logarithm of their data's size
// in smallestBuffer. The garbage collector takes what is not used.
var bufferPools [14]sync.Pool

func newBuffer(lenBytes int) *buffer {
	class := bits.Len(uint(max(lenBytes, 1)-1) / smallestBuffer)
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{memory: block.AlignedBuffer(block.BlockBytes + smallestBuffer<<class), class: class}
}

func (b *buffer) data(lenBytes int) []byte {
	return b.memory[block.BlockBytes : block.BlockBytes+lenBytes]
}

// with puts a head in front of the data and returns both.
func (b *buffer) with(head []byte, lenBytes int) []byte {
	start := block.BlockBytes - len(head)
	copy(b.memory[start:], head)
	return b.memory[start : block.BlockBytes+lenBytes]
}

func (b *buffer) release() { bufferPools[b.class].Put(b) }
