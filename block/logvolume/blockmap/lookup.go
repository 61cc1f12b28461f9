package blockmap

import "torpor/block/logvolume/format"

// Lookup returns what a volume that writes to this layer reads: the entry of the
// first layer from here down that has one. Hole and Unmapped both are zeros.
func (m *Map) Lookup(id format.LayerID, b format.Block) (format.Entry, *Missing) {
	k, i := split(b)
	for l := m.layer(id); l != nil && b < l.size; l = l.parent {
		s := l.table.slot(k)
		if s == nil || !s.present() {
			continue
		}
		if s.frame == 0 {
			return format.Unmapped, &Missing{l.id, k, s.at}
		}
		s.touch()
		if e := m.frames.leaf(s.frame)[i]; e != format.Unmapped {
			return e, nil
		}
	}
	return format.Unmapped, nil
}

// touch keeps the leaf in memory for another round of the clock.
func (s *slot) touch() {
	if s.state&referenced == 0 {
		s.state |= referenced
	}
}

// LookupRange fills entries as Lookup would. With a missing leaf, the first n are
// filled.
func (m *Map) LookupRange(id format.LayerID, b format.Block, entries []format.Entry) (n int, missing *Missing) {
	l := m.layer(id)
	for n < len(entries) {
		k, i := split(b + format.Block(n))
		part := entries[n:min(len(entries), n+format.LeafEntries-i)]
		if missing := m.lookupPart(l, k, i, part); missing != nil {
			return n, missing
		}
		n += len(part)
	}
	return n, nil
}

// lookupPart fills entries from entry i of a leaf on.
func (m *Map) lookupPart(l *layer, k format.LeafIndex, i int, part []format.Entry) *Missing {
	clear(part)
	open := len(part) // entries that no layer had yet
	b := firstBlock(k) + format.Block(i)
	for ; l != nil && open > 0 && b < l.size; l = l.parent {
		if left := l.size - b; format.Block(len(part)) > left {
			part = part[:left] // what is behind the end stays Unmapped
		}
		s := l.table.slot(k)
		if s == nil || !s.present() {
			continue
		}
		if s.frame == 0 {
			return &Missing{l.id, k, s.at}
		}
		s.touch()
		from := m.frames.leaf(s.frame)[i : i+len(part)]
		open = 0
		for j, e := range part {
			if e == format.Unmapped {
				e = from[j]
				part[j] = e
			}
			if e == format.Unmapped {
				open++
			}
		}
	}
	return nil
}

// Own returns what this layer itself has for a block.
func (m *Map) Own(id format.LayerID, b format.Block) (format.Entry, *Missing) {
	k, i := split(b)
	s := m.layer(id).table.slot(k)
	switch {
	case s == nil || !s.present():
		return format.Unmapped, nil
	case s.frame == 0:
		return format.Unmapped, &Missing{id, k, s.at}
	}
	s.touch()
	return m.frames.leaf(s.frame)[i], nil
}

// Holder returns the layer that maps a block to a location, for a row that says
// that it is of layer id: that one or what it was merged into, or both while that is
// under way. It is 0 if the location is not in use for this block. After a recovery
// the map knows of a merge when Merge is called again, with 0 leaves if need be.
func (m *Map) Holder(id format.LayerID, b format.Block, e format.Entry) (format.LayerID, *Missing) {
	id, ok := m.MergedInto(id)
	if !ok {
		return 0, nil
	}
	for l := m.layer(id); l != nil; l = l.into {
		own, missing := m.Own(l.id, b)
		if missing != nil {
			return 0, missing
		}
		if own == e {
			return l.id, nil
		}
	}
	return 0, nil
}

// LeafHolder is Holder for the place of a leaf.
func (m *Map) LeafHolder(id format.LayerID, k format.LeafIndex, at format.Entry) format.LayerID {
	id, ok := m.MergedInto(id)
	if !ok {
		return 0
	}
	for l := m.layer(id); l != nil; l = l.into {
		if s := l.table.slot(k); s != nil && s.at == at {
			return l.id
		}
	}
	return 0
}

// LeafAt returns where a leaf is on disk, the newest of a dirty one; 0 if nowhere.
func (m *Map) LeafAt(id format.LayerID, k format.LeafIndex) format.Entry {
	if s := m.layer(id).table.slot(k); s != nil {
		return s.at
	}
	return 0
}

// Absent lists up to most leaves of the layer itself that have blocks in a range
// and are not in memory. If there are none, changes to the range miss nothing.
func (m *Map) Absent(id format.LayerID, start format.Block, count uint64, most int) []Missing {
	l := m.layer(id)
	var absent []Missing
	k, _ := split(start)
	end := start + format.Block(count)
	for k = l.table.next(k); firstBlock(k) < end && k < noLeaf && len(absent) < most; k = l.table.next(k + 1) {
		if s := l.table.slot(k); s.frame == 0 {
			absent = append(absent, Missing{l.id, k, s.at})
		}
	}
	return absent
}

// Walk calls f with each block from a block on that the layer itself maps to a
// location, until f returns false. It returns where to go on, MaxBlock at the end.
// f must not call the map.
func (m *Map) Walk(id format.LayerID, from format.Block, f func(format.Block, format.Entry) bool) (format.Block, *Missing) {
	l := m.layer(id)
	k, _ := split(from)
	for k = l.table.next(k); k < noLeaf; k = l.table.next(k + 1) {
		s := l.table.slot(k)
		first := firstBlock(k)
		if s.state&counted != 0 && s.mapped() == 0 {
			continue
		}
		if s.frame == 0 {
			return max(from, first), &Missing{id, k, s.at}
		}
		for i, e := range m.frames.leaf(s.frame) {
			b := first + format.Block(i)
			if b >= from && e.Mapped() && !f(b, e) {
				return b + 1, nil
			}
		}
	}
	return format.MaxBlock, nil
}
