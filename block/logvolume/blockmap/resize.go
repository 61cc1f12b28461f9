package blockmap

import "torpor/block/logvolume/format"

// Resize changes the size of a layer without children. What is behind the new end
// is dropped and its locations are reported to old; what is behind the old end reads
// as zeros, whatever layers below have there. It is to be called until it returns
// nil. A smaller size counts at once, also in a Freeze before that; after a crash
// Resize to the size of the manifest goes on. old must not call the map.
func (m *Map) Resize(id format.LayerID, sizeBlocks format.Block, old func(format.Entry)) *Missing {
	l := m.layer(id)
	if sizeBlocks < l.size {
		if missing := m.cutLast(l, sizeBlocks, old); missing != nil {
			return missing
		}
		l.size = sizeBlocks
	}
	if missing := m.cut(l, old); missing != nil {
		return missing
	}
	if sizeBlocks > l.size && l.parent != nil {
		// All layers below count, not only up to where they can be seen now: a merge
		// may have come past here.
		if _, missing := m.veil(l, l.parent, l.size, sizeBlocks, int(noLeaf)); missing != nil {
			return missing
		}
	}
	l.size = sizeBlocks
	return nil
}

// cut drops the leaves behind the end of a layer.
func (m *Map) cut(l *layer, old func(format.Entry)) *Missing {
	k, i := split(l.size)
	if i > 0 {
		k++
	}
	for k = l.table.next(k); k < noLeaf; k = l.table.next(k + 1) {
		if missing := m.clearLeaf(l, k, l.table.slot(k), old); missing != nil {
			return missing
		}
	}
	return nil
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
