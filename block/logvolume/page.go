package logvolume

import (
	"hash/crc32"
	"sync"

	"torpor/block"
	"torpor/block/logvolume/format"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// page is a block in memory, aligned for direct I/O. Its content does not change
// between the change it came with and the last release.
type page struct {
	data []byte
	sum  uint32
	refs int // guarded by Log.mu
}

// zeroPage pads rows. It is never released.
var zeroPage = &page{data: block.AlignedBuffer(format.BlockBytes), sum: checksum(make([]byte, format.BlockBytes))}

// slabPages is how many pages are allocated at once.
const slabPages = 256

// pagePool recycles pages. What it has allocated it keeps: the budget for dirty
// pages bounds it. It may be used concurrently.
type pagePool struct {
	mu   sync.Mutex
	free []*page
}

// get fills pages with unused ones, of any content.
func (pool *pagePool) get(pages []*page) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	for len(pool.free) < len(pages) {
		pool.growLocked()
	}
	rest := len(pool.free) - len(pages)
	copy(pages, pool.free[rest:])
	pool.free = pool.free[:rest]
	for _, p := range pages {
		p.refs = 1
	}
}

func (pool *pagePool) growLocked() {
	slab := block.AlignedBuffer(slabPages * format.BlockBytes)
	pages := make([]page, slabPages)
	for i := range pages {
		pages[i].data = slab[i*format.BlockBytes : (i+1)*format.BlockBytes : (i+1)*format.BlockBytes]
		pool.free = append(pool.free, &pages[i])
	}
}

// put takes pages back that nobody refers to.
func (pool *pagePool) put(pages []*page) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	pool.free = append(pool.free, pages...)
}

// pagesOf copies p into pages.
func (pool *pagePool) pagesOf(p []byte) []*page {
	pages := make([]*page, len(p)/format.BlockBytes)
	pool.get(pages)
	for i, page := range pages {
		copy(page.data, p[i*format.BlockBytes:])
		page.sum = checksum(page.data)
	}
	return pages
}
