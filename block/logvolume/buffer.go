package logvolume

import (
	"math/bits"
	"sync"

	"torpor/block"
)

// bufferPool recycles aligned buffers by powers of two. It may be used concurrently.
type bufferPool struct {
	pools [32]sync.Pool
}

// get returns n bytes of any content.
func (b *bufferPool) get(n int) []byte {
	if n == 0 {
		return nil
	}
	class := bits.Len(uint(n - 1))
	if p, ok := b.pools[class].Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return block.AlignedBuffer(1 << class)[:n]
}

// put takes a buffer back. Others than those from get, such as the encoder
// makes, are left to the garbage collector.
func (b *bufferPool) put(p []byte) {
	p = p[:cap(p)]
	if len(p) == 0 || len(p)&(len(p)-1) != 0 || !block.Aligned(p) {
		return
	}
	b.pools[bits.Len(uint(len(p)-1))].Put(&p)
}
