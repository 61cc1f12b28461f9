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

// put takes a buffer from get back.
func (b *bufferPool) put(p []byte) {
	if cap(p) == 0 {
		return
	}
	p = p[:cap(p)]
	b.pools[bits.Len(uint(cap(p)-1))].Put(&p)
}
