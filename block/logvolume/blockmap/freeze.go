package blockmap

import (
	"fmt"
	"maps"
	"slices"

	"torpor/block/logvolume/format"
)

// Frozen is the leaves that were dirty at a moment, as they were then, for a
// checkpoint:
//
//	Freeze -> Next and Written until Next has none -> Records each layer -> Done
//	   \------------------------------------------------> Abandon
type Frozen struct {
	m         *Map
	layers    []*frozenLayer // by ID
	unwritten int
	deferred  []format.Entry // released since, but named by this checkpoint
	copied    []copiedLeaf   // since changed, and thus in memory twice
	copies    int            // of them, those not Written
	layerAt   int            // Next goes on at this layer and item
	itemAt    int
}

type copiedLeaf struct {
	layer *frozenLayer
	item  *frozenItem
}

// frozenLayer is a layer as it was.
type frozenLayer struct {
	layer *layer
	spec  LayerSpec
	items []frozenItem // in order
	// before says for each leaf whose place changed since, other than by Written,
	// what it was; 0 if there was none. items are not looked up here.
	before map[format.LeafIndex]format.Entry
}

type frozenItem struct {
	leaf  *Leaf
	at    format.Entry // where it was written; 0: not yet
	frame frame
	index format.LeafIndex
	gone  bool // it was not written when the map dropped it
	taken bool // by Next
	twice bool // the map has changed it since
}

// FrozenLeaf is a leaf to be written.
type FrozenLeaf struct {
	Layer   format.LayerID
	Index   format.LeafIndex
	Entries *Leaf // not changed before it is Written, or the Frozen abandoned
}

// Freeze takes all dirty leaves, in time for these only. It panics if another
// Frozen is open.
func (m *Map) Freeze() *Frozen {
	if m.frozen != nil {
		panic("blockmap: frozen already")
	}
	f := &Frozen{m: m}
	for _, id := range slices.Sorted(maps.Keys(m.layers)) {
		f.layers = append(f.layers, m.freezeLayer(m.layers[id]))
	}
	f.unwritten = m.dirty
	m.dirty = 0
	m.frozen = f
	return f
}

func (m *Map) freezeLayer(l *layer) *frozenLayer {
	l.frozen = &frozenLayer{layer: l, spec: l.spec(), before: map[format.LeafIndex]format.Entry{}}
	if l.dirty == 0 {
		return l.frozen
	}
	items := make([]frozenItem, 0, l.dirty)
	l.table.takeDirty(func(k format.LeafIndex, s *slot) {
		s.state = s.state&^dirty | frozen
		items = append(items, frozenItem{leaf: m.frames.leaf(s.frame), frame: s.frame, index: k})
	})
	l.frozen.items = items
	l.dirty = 0
	return l.frozen
}

// frozenItem returns the leaf in the open Frozen, or nil.
func (l *layer) frozenItem(k format.LeafIndex) *frozenItem {
	if l.frozen == nil {
		return nil
	}
	return l.frozen.item(k)
}

func (f *frozenLayer) item(k format.LeafIndex) *frozenItem {
	i, ok := slices.BinarySearchFunc(f.items, k, func(item frozenItem, k format.LeafIndex) int {
		return int(item.index) - int(k)
	})
	if !ok {
		return nil
	}
	return &f.items[i]
}

// noteBefore notes where a leaf was, when that is about to change.
func (l *layer) noteBefore(k format.LeafIndex, at format.Entry) {
	if l.frozen == nil {
		return
	}
	if _, ok := l.frozen.before[k]; !ok {
		l.frozen.before[k] = at
	}
}

// Layers lists the layers there were, by ID.
func (f *Frozen) Layers() []LayerSpec {
	specs := make([]LayerSpec, len(f.layers))
	for i, l := range f.layers {
		specs[i] = l.spec
	}
	return specs
}

// Len is how many leaves have to be written.
func (f *Frozen) Len() int { return f.unwritten }

// Next returns up to most leaves that are to be written: those first that are in
// memory twice, then by layer and index.
func (f *Frozen) Next(most int) []FrozenLeaf {
	f.mustBeOpen()
	var leaves []FrozenLeaf
	take := func(l *frozenLayer, item *frozenItem) {
		if !item.taken {
			item.taken = true
			leaves = append(leaves, FrozenLeaf{l.spec.ID, item.index, item.leaf})
		}
	}
	for len(leaves) < most && len(f.copied) > 0 {
		take(f.copied[0].layer, f.copied[0].item)
		f.copied = f.copied[1:]
	}
	for len(leaves) < most && f.layerAt < len(f.layers) {
		l := f.layers[f.layerAt]
		if f.itemAt == len(l.items) {
			f.layerAt, f.itemAt = f.layerAt+1, 0
			continue
		}
		take(l, &l.items[f.itemAt])
		f.itemAt++
	}
	return leaves
}

// Copies is how many leaves are in memory twice, for they were changed since and
// are not Written.
func (f *Frozen) Copies() int { return f.copies }

// noteCopy notes that a leaf is in memory twice from now on.
func (f *Frozen) noteCopy(l *layer, k format.LeafIndex) {
	item := l.frozen.item(k)
	item.twice = true
	f.copies++
	if !item.taken {
		f.copied = append(f.copied, copiedLeaf{l.frozen, item})
	}
}

// Written says where a leaf is now. Its place of before is released; or the new
// one, by Done, if the map has dropped that leaf since.
func (f *Frozen) Written(id format.LayerID, k format.LeafIndex, at format.Entry) {
	f.mustBeOpen()
	l := f.layer(id)
	item := l.item(k)
	if item == nil || item.at != 0 {
		panic(fmt.Sprintf("blockmap: leaf %d of layer %d is not to be written", k, id))
	}
	item.at = at
	f.unwritten--
	if item.twice {
		f.copies--
	}
	f.settle(l.layer, item)
	if item.gone {
		f.m.release(at)
		return
	}
	s := l.layer.table.slot(k)
	if s.at != 0 {
		f.m.released(s.at)
	}
	s.at = at
	f.m.Evict(evictStep)
}

// settle gives up the frame of an item: to the map, if it has no newer one.
func (f *Frozen) settle(l *layer, item *frozenItem) {
	if !item.gone {
		if s := l.table.slot(item.index); s.state&frozen != 0 {
			s.state &^= frozen
			return
		}
	}
	f.m.frames.release(item.frame)
}

// Done ends a checkpoint whose manifest is durable, and reports what was released
// meanwhile and is named by it. It panics if a leaf was not written.
func (f *Frozen) Done() {
	f.mustBeOpen()
	if f.unwritten > 0 {
		panic(fmt.Sprintf("blockmap: done with %d leaves not written", f.unwritten))
	}
	f.close()
}

// Abandon ends a checkpoint that failed: leaves that were not written are dirty
// again, unless the map has newer copies, which are so anyway. Those that were
// written stay where they are: that row is in the log.
func (f *Frozen) Abandon() {
	f.mustBeOpen()
	for _, l := range f.layers {
		for i := range l.items {
			f.abandon(l.layer, &l.items[i])
		}
	}
	f.close()
}

func (f *Frozen) abandon(l *layer, item *frozenItem) {
	if item.at != 0 {
		return
	}
	f.settle(l, item)
	if item.gone {
		return
	}
	if s := l.table.slot(item.index); s.state&dirty == 0 {
		f.m.makeDirty(l, item.index, s)
	}
}

func (f *Frozen) close() {
	f.m.frozen = nil
	for _, l := range f.layers {
		l.layer.frozen = nil
	}
	for _, at := range f.deferred {
		f.m.released(at)
	}
}

func (f *Frozen) mustBeOpen() {
	if f.m.frozen != f {
		panic("blockmap: frozen is closed")
	}
}

func (f *Frozen) layer(id format.LayerID) *frozenLayer {
	i, ok := slices.BinarySearchFunc(f.layers, id, func(l *frozenLayer, id format.LayerID) int {
		return int(l.spec.ID) - int(id)
	})
	if !ok {
		panic(fmt.Sprintf("blockmap: layer %d was not frozen", id))
	}
	return f.layers[i]
}
