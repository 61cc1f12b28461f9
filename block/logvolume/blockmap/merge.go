package blockmap

import (
	"fmt"
	"slices"

	"torpor/block/logvolume/format"
)

// Merge moves what a layer has into its only child, whose parent is then the
// layer's own. What the child has itself, or is behind its end, is reported to old.
// What volumes read stays the same all the time, and changes to the child may go on
// between the steps; only the layer itself is incomplete then, see Holder. Merge works on up
// to so many leaves, and is to be called until it is done, or returns what is
// missing. From then on MergedInto(id) is into. Of layers that are neighbours one
// is merged at a time. old must not call the map.
func (m *Map) Merge(id, into format.LayerID, leaves int, old func(format.Entry)) (done bool, missing *Missing) {
	l, t := m.layer(id), m.layer(into)
	if len(l.children) != 1 || t.parent != l {
		panic(fmt.Sprintf("blockmap: layer %d is not the only child of %d", into, id))
	}
	l.into = t
	for k := l.table.next(0); k < noLeaf; k = l.table.next(k + 1) {
		if leaves--; leaves < 0 {
			return false, nil
		}
		if missing := m.mergeLeaf(l, t, k, old); missing != nil {
			return false, missing
		}
	}
	if l.parent != nil {
		from := max(l.size, l.veiled)
		l.veiled, missing = m.veil(t, l.parent, from, t.size, leaves)
		if missing != nil || l.veiled < t.size {
			return false, missing
		}
	}
	m.skip(l, t)
	return true, nil
}

// skip takes a layer without leaves out of the chain.
func (m *Map) skip(l, t *layer) {
	t.parent = l.parent
	if p := l.parent; p != nil {
		p.children[slices.Index(p.children, l)] = t
	}
	l.children = nil
	l.parent = nil
	m.forget(l)
	m.merged[l.id] = t.id
}

func (m *Map) mergeLeaf(l, t *layer, k format.LeafIndex, old func(format.Entry)) *Missing {
	s := l.table.slot(k)
	above := t.table.slot(k)
	absent := above == nil || !above.present()
	if absent && firstBlock(k+1) <= t.size {
		m.move(l, t, k, s)
		return nil
	}
	if firstBlock(k) >= t.size || !absent && above.full() {
		return m.clearLeaf(l, k, s, old)
	}
	s, missing := m.inMemory(l, k)
	if missing != nil {
		return missing
	}
	if above, missing = m.inMemory(t, k); missing != nil {
		return missing
	}
	if above == nil {
		above = m.create(t, k)
	}
	m.mergeEntries(l, t, k, s, above, old)
	m.drop(l, k, s)
	m.dropEmpty(t, k, above)
	return nil
}

// mergeEntries moves the entries of a leaf that the one above has not.
func (m *Map) mergeEntries(l, t *layer, k format.LeafIndex, s, above *slot, old func(format.Entry)) {
	leaf, to := m.frames.leaf(s.frame), m.frames.leaf(above.frame)
	for i, e := range leaf {
		taken := to[i] != format.Unmapped || firstBlock(k)+format.Block(i) >= t.size
		switch {
		case taken && e.Mapped():
			old(e)
		case taken || l.normal(e) == format.Unmapped:
		default:
			to = m.writable(t, k, above)
			m.change(t, above, to, i, e)
		}
	}
}

// move gives a leaf to the layer above, which has none there.
func (m *Map) move(l, t *layer, k format.LeafIndex, s *slot) {
	if s.state&frozen != 0 {
		m.makeDirty(l, k, s) // the old content stays with the Frozen, as this layer's
	}
	m.place(t, k, m.take(l, k, s))
}

// veil puts holes where a layer is Unmapped in [from, to) and below has leaves,
// for up to so many leaves. It returns how far it came.
func (m *Map) veil(l, below *layer, from, to format.Block, leaves int) (format.Block, *Missing) {
	if from >= to {
		return to, nil
	}
	k, _ := split(from)
	for k = below.nextIn(k); k < noLeaf && firstBlock(k) < to; k = below.nextIn(k + 1) {
		from = max(from, firstBlock(k))
		if leaves--; leaves < 0 {
			return from, nil
		}
		if missing := m.veilLeaf(l, k, from, to); missing != nil {
			return from, missing
		}
	}
	return to, nil
}

func (m *Map) veilLeaf(l *layer, k format.LeafIndex, from, to format.Block) *Missing {
	if s := l.table.slot(k); s != nil && s.full() {
		return nil
	}
	s, missing := m.inMemory(l, k)
	if missing != nil {
		return missing
	}
	if s == nil {
		s = m.create(l, k)
	}
	for b := from; b < min(to, firstBlock(k+1)); b++ {
		if _, i := split(b); m.frames.leaf(s.frame)[i] == format.Unmapped {
			m.change(l, s, m.writable(l, k, s), i, format.Hole)
		}
	}
	return nil
}

// Remove removes a layer without children, and calls old with each location that
// it had. It works on up to so many leaves, and is to be called until it is done,
// or returns what is missing. old must not call the map.
func (m *Map) Remove(id format.LayerID, leaves int, old func(format.Entry)) (done bool, missing *Missing) {
	l := m.layer(id)
	if len(l.children) > 0 {
		panic(fmt.Sprintf("blockmap: layer %d has children", id))
	}
	leaves, missing = m.clearLeaves(l, 0, leaves, old)
	if missing != nil || leaves < 0 {
		return false, missing
	}
	m.forget(l)
	return true, nil
}

// clearLeaves drops up to so many leaves from k on. It returns how many more it
// might have dropped, -1 if there are more.
func (m *Map) clearLeaves(l *layer, k format.LeafIndex, leaves int, old func(format.Entry)) (left int, missing *Missing) {
	for k = l.table.next(k); k < noLeaf; k = l.table.next(k + 1) {
		if leaves--; leaves < 0 {
			return leaves, nil
		}
		if missing := m.clearLeaf(l, k, l.table.slot(k), old); missing != nil {
			return leaves, missing
		}
	}
	return leaves, nil
}
