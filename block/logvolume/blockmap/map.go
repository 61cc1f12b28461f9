package blockmap

import (
	"fmt"

	"torpor/block/logvolume/format"
)

// Map holds the layers of a log. See the package for how it is used.
type Map struct {
	layers   map[format.LayerID]*layer
	recent   [16]*layer // by the lower bits of their IDs; spares the look-up in layers
	merged   map[format.LayerID]format.LayerID
	released func(format.Entry)

	frames     frames
	tableBytes int64
	limitBytes int64
	keepClean  int   // constant, but for tests
	hand       frame // of the clock
	dirty      int   // leaves
	frozen     *Frozen
}

// New returns a map without layers. It calls released with each place of a leaf
// that is not used any more, from within whatever call made it so; released must
// not call the map.
func New(released func(format.Entry)) *Map {
	return &Map{
		layers:   map[format.LayerID]*layer{},
		merged:   map[format.LayerID]format.LayerID{},
		released: released,

		keepClean: keepClean,
	}
}

// Missing is a leaf that has to be read first.
type Missing struct {
	Layer format.LayerID
	Leaf  format.LeafIndex
	At    format.Entry // where it is
}

// Put takes a leaf that was read, if it is still missing. It copies it. Put may
// evict others.
func (m *Map) Put(missing Missing, leaf *Leaf) {
	l := m.layers[missing.Layer]
	if l == nil {
		return
	}
	s := l.table.slot(missing.Leaf)
	if s == nil || s.frame != 0 || s.at == 0 || s.at != missing.At {
		return
	}
	m.Evict(evictStep)
	s.frame = m.frames.alloc(owner{l.id, missing.Leaf})
	to := m.frames.leaf(s.frame)
	l.uncount(s)
	s.state &^= mappedWeight * countMask
	for i, e := range leaf {
		e = l.normal(e)
		to[i] = e
		s.state += weight(e)
	}
	s.state |= counted | referenced
	l.count(s)
	if s.used() == 0 {
		m.drop(l, missing.Leaf, s)
	}
}

// normal returns what an entry that was read says. Holes say nothing in a layer
// without parent, and locations of 0 nothing anywhere.
func (l *layer) normal(e format.Entry) format.Entry {
	switch {
	case e.Location() == 0, e.Location() == format.MaxLocation && l.parent == nil:
		return format.Unmapped
	case e.Location() == format.MaxLocation:
		return format.Hole
	}
	return e
}

func (m *Map) layer(id format.LayerID) *layer {
	if l := m.recent[id%16]; l != nil && l.id == id {
		return l
	}
	return m.findLayer(id)
}

func (m *Map) findLayer(id format.LayerID) *layer {
	l := m.layers[id]
	if l == nil {
		panic(fmt.Sprintf("blockmap: no layer %d", id))
	}
	m.recent[id%16] = l
	return l
}

// split returns the leaf of a block and the block's place in it.
func split(b format.Block) (format.LeafIndex, int) {
	return format.LeafIndex(b / format.LeafEntries), int(b % format.LeafEntries)
}

// firstBlock of a leaf.
func firstBlock(k format.LeafIndex) format.Block {
	return format.Block(k) * format.LeafEntries
}

// create makes an empty leaf that is absent.
func (m *Map) create(l *layer, k format.LeafIndex) *slot {
	f := m.frames.alloc(owner{l.id, k})
	*m.frames.leaf(f) = Leaf{}
	return m.place(l, k, slot{frame: f, state: counted | dirty | referenced})
}

// place puts a slot where none is.
func (m *Map) place(l *layer, k format.LeafIndex, v slot) *slot {
	if v.at != 0 {
		l.noteBefore(k, 0)
	}
	s, grown := l.table.insert(k)
	m.tableBytes += grown
	*s = v
	l.leaves++
	l.count(s)
	if v.frame != 0 {
		*m.frames.owner(v.frame) = owner{l.id, k}
	}
	if v.state&dirty != 0 {
		m.noteDirty(l, k)
	}
	return s
}

func (m *Map) noteDirty(l *layer, k format.LeafIndex) {
	l.table.markDirty(k)
	l.dirty++
	m.dirty++
}

// take removes a slot from its layer and returns it, without what belongs to a
// Frozen: a frame that is shared with it, and a place that the Frozen replaces,
// which is released.
func (m *Map) take(l *layer, k format.LeafIndex, s *slot) slot {
	v := *s
	if v.state&frozen != 0 {
		*m.frames.owner(v.frame) = owner{}
		v.frame = 0
	}
	if item := l.frozenItem(k); item != nil && item.at == 0 && !item.gone {
		item.gone = true
		if v.at != 0 {
			m.released(v.at)
			v.at = 0
		}
	}
	if v.at != 0 {
		l.noteBefore(k, v.at)
	}
	if v.state&dirty != 0 {
		l.dirty--
		m.dirty--
	}
	l.uncount(s)
	l.leaves--
	m.tableBytes -= l.table.remove(k)
	return v
}

// drop makes a leaf absent.
func (m *Map) drop(l *layer, k format.LeafIndex, s *slot) {
	v := m.take(l, k, s)
	if v.frame != 0 {
		m.frames.release(v.frame)
	}
	if v.at != 0 {
		m.release(v.at)
	}
}

// release reports a place of a leaf, now or when the open Frozen is done.
func (m *Map) release(at format.Entry) {
	if m.frozen != nil {
		m.frozen.deferred = append(m.frozen.deferred, at)
		return
	}
	m.released(at)
}

// writable returns the content of a leaf in memory, to be changed.
func (m *Map) writable(l *layer, k format.LeafIndex, s *slot) *Leaf {
	if s.state&dirty == 0 {
		m.makeDirty(l, k, s)
	}
	return m.frames.leaf(s.frame)
}

func (m *Map) makeDirty(l *layer, k format.LeafIndex, s *slot) {
	if s.state&frozen != 0 {
		shared := s.frame
		s.frame = m.frames.alloc(owner{l.id, k})
		*m.frames.leaf(s.frame) = *m.frames.leaf(shared)
		*m.frames.owner(shared) = owner{}
		m.frozen.noteCopy(l, k)
	}
	s.state = s.state&^frozen | dirty
	m.noteDirty(l, k)
}
