package blockmap

import (
	"fmt"

	"torpor/block/logvolume/format"
)

// Resize changes the size of a layer without children. What is behind the new end
// is dropped and its locations are reported to old; what is behind the old end reads
// as zeros, whatever layers below have there. It works on up to so many leaves, and
// is to be called until it is done, or returns what is missing. A smaller size
// counts at once, a larger one as far as it came; after a crash between, Resize to the
// manifest's size drops what is left behind the end. old must not call the map.
func (m *Map) Resize(id format.LayerID, sizeBlocks format.Block, leaves int, old func(format.Entry)) (done bool, missing *Missing) {
	l := m.layer(id)
	if len(l.children) > 0 {
		panic(fmt.Sprintf("blockmap: resize layer %d, which has children", id))
	}
	if sizeBlocks < l.size {
		if missing := m.cutLast(l, sizeBlocks, old); missing != nil {
			return false, missing
		}
		l.size = sizeBlocks
	}
	k, i := split(l.size)
	if i > 0 {
		k++
	}
	if leaves, missing = m.clearLeaves(l, k, leaves, old); missing != nil || leaves < 0 {
		return false, missing
	}
	if l.parent == nil {
		l.size = sizeBlocks
	}
	// All layers below count, not only up to where they can be seen now: a merge may
	// have come past here.
	l.size, missing = m.veil(l, l.parent, l.size, sizeBlocks, leaves)
	return l.size == sizeBlocks, missing
}

// cutLast drops the entries of the last leaf that are behind an end.
func (m *Map) cutLast(l *layer, end format.Block, old func(format.Entry)) *Missing {
	k, i := split(end)
	if i == 0 {
		return nil
	}
	s, missing := m.inMemory(l, k)
	if s == nil {
		return missing
	}
	reportMapped(m.frames.leaf(s.frame)[i:], old)
	m.fill(l, k, s, i, format.LeafEntries, format.Unmapped)
	m.dropEmpty(l, k, s)
	return nil
}
