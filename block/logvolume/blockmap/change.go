package blockmap

import "torpor/block/logvolume/format"

// Set changes a block of a layer and returns the layer's own entry of before. It
// changes nothing if the leaf is missing. Behind the layer's end nothing is kept:
// there the new entry itself is returned.
func (m *Map) Set(id format.LayerID, b format.Block, e format.Entry) (old format.Entry, missing *Missing) {
	l := m.layer(id)
	if b >= l.size {
		return e, nil
	}
	k, i := split(b)
	s := l.table.slot(k)
	if s == nil || s.frame == 0 || !e.Mapped() {
		return m.setSlow(l, k, i, e)
	}
	leaf := m.writable(l, k, s)
	old = leaf[i]
	leaf[i] = e
	if !old.Mapped() {
		s.state += mappedWeight - weight(old)
		l.mapped++
	}
	s.touch()
	return old, nil
}

// setSlow is Set for leaves that are not in memory, and for entries that may
// leave nothing of a leaf.
func (m *Map) setSlow(l *layer, k format.LeafIndex, i int, e format.Entry) (format.Entry, *Missing) {
	if e == format.Hole && !l.below(k) {
		e = format.Unmapped
	}
	s, missing := m.inMemory(l, k)
	if missing != nil {
		return format.Unmapped, missing
	}
	if s == nil {
		if e == format.Unmapped {
			return format.Unmapped, nil
		}
		s = m.create(l, k)
	}
	old := m.frames.leaf(s.frame)[i]
	if old != e {
		m.change(l, s, m.writable(l, k, s), i, e)
		m.dropEmpty(l, k, s)
	}
	return old, nil
}

// inMemory returns the slot of a leaf that is in memory, or nil if it is absent.
func (m *Map) inMemory(l *layer, k format.LeafIndex) (*slot, *Missing) {
	s := l.table.slot(k)
	switch {
	case s == nil || !s.present():
		return nil, nil
	case s.frame == 0:
		return nil, &Missing{l.id, k, s.at}
	}
	return s, nil
}

// change sets an entry of a writable leaf, and keeps the counts.
func (m *Map) change(l *layer, s *slot, leaf *Leaf, i int, e format.Entry) {
	change := weight(e) - weight(leaf[i])
	leaf[i] = e
	before := s.mapped()
	s.state += change
	l.mapped += int64(s.mapped() - before)
}

func (m *Map) dropEmpty(l *layer, k format.LeafIndex, s *slot) {
	if s.used() == 0 {
		m.drop(l, k, s)
	}
}

// SetRange sets the blocks from start on to entries, which all have locations, and
// fills old as Set would. With a missing leaf, the first n are done.
func (m *Map) SetRange(id format.LayerID, start format.Block, entries, old []format.Entry) (n int, missing *Missing) {
	l := m.layer(id)
	for n < len(entries) {
		b := start + format.Block(n)
		if b >= l.size {
			copy(old[n:], entries[n:])
			return len(entries), nil
		}
		k, i := split(b)
		end := min(len(entries), n+format.LeafEntries-i)
		if left := l.size - b; format.Block(end-n) > left {
			end = n + int(left)
		}
		s, missing := m.inMemory(l, k)
		if missing != nil {
			return n, missing
		}
		if s == nil {
			s = m.create(l, k)
		}
		m.setPart(l, s, m.writable(l, k, s)[i:i+end-n], entries[n:end], old[n:end])
		s.touch()
		n = end
	}
	return n, nil
}

func (m *Map) setPart(l *layer, s *slot, part, entries, old []format.Entry) {
	var added state
	for j, e := range entries {
		old[j] = part[j]
		part[j] = e
		added += mappedWeight - weight(old[j])
	}
	before := s.mapped()
	s.state += added
	l.mapped += int64(s.mapped() - before)
}

// SetHoles makes blocks read as zeros, and calls old with each location that they
// had in this layer. With a missing leaf, the first done blocks are done. It costs
// time for leaves of this layer and of those under it only. old must not call the
// map.
func (m *Map) SetHoles(id format.LayerID, start format.Block, count uint64, old func(format.Entry)) (done uint64, missing *Missing) {
	l := m.layer(id)
	end := min(start+format.Block(count), l.size)
	if start >= end {
		return count, nil
	}
	k, _ := split(start)
	for k = l.nextIn(k); k < noLeaf && firstBlock(k) < end; k = l.nextIn(k + 1) {
		first := firstBlock(k)
		lo, hi := 0, format.LeafEntries
		if start > first {
			lo = int(start - first)
		}
		if end-first < format.LeafEntries {
			hi = int(end - first)
		}
		whole := lo == 0 && (hi == format.LeafEntries || end == l.size)
		hole := format.Unmapped
		if l.below(k) {
			hole = format.Hole
		}
		if missing := m.setHoles(l, k, lo, hi, whole, hole, old); missing != nil {
			return uint64(max(first, start) - start), missing
		}
	}
	return count, nil
}

// setHoles sets entries [lo, hi) of a leaf to hole; whole says that it has no others.
func (m *Map) setHoles(l *layer, k format.LeafIndex, lo, hi int, whole bool, hole format.Entry, old func(format.Entry)) *Missing {
	s := l.table.slot(k)
	if s != nil && hole == format.Hole && s.full() && s.mapped() == 0 {
		return nil
	}
	if whole && s != nil && s.present() {
		if missing := m.clearLeaf(l, k, s, old); missing != nil {
			return missing
		}
	}
	s, missing := m.inMemory(l, k)
	if missing != nil {
		return missing
	}
	if s == nil {
		if hole == format.Unmapped {
			return nil
		}
		s = m.create(l, k)
	}
	reportMapped(m.frames.leaf(s.frame)[lo:hi], old)
	m.fill(l, k, s, lo, hi, hole)
	m.dropEmpty(l, k, s)
	return nil
}

// fill sets entries [lo, hi) of a leaf in memory.
func (m *Map) fill(l *layer, k format.LeafIndex, s *slot, lo, hi int, e format.Entry) {
	for i := lo; i < hi; i++ {
		if m.frames.leaf(s.frame)[i] != e {
			m.change(l, s, m.writable(l, k, s), i, e)
		}
	}
}

// clearLeaf drops a whole leaf, and calls old with its locations. It has to be in
// memory unless it is known to have none.
func (m *Map) clearLeaf(l *layer, k format.LeafIndex, s *slot, old func(format.Entry)) *Missing {
	if s.state&counted == 0 || s.mapped() > 0 {
		if s.frame == 0 {
			return &Missing{l.id, k, s.at}
		}
		reportMapped(m.frames.leaf(s.frame)[:], old)
	}
	m.drop(l, k, s)
	return nil
}

func reportMapped(entries []format.Entry, old func(format.Entry)) {
	for _, e := range entries {
		if e.Mapped() {
			old(e)
		}
	}
}

// MarkDirty has a leaf written anew at the next checkpoint, if it is there.
func (m *Map) MarkDirty(id format.LayerID, k format.LeafIndex) *Missing {
	l := m.layer(id)
	s, missing := m.inMemory(l, k)
	if s != nil && s.state&(dirty|frozen) == 0 {
		m.makeDirty(l, k, s)
	}
	return missing
}
