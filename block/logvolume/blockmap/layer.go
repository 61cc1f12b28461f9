package blockmap

import (
	"fmt"
	"maps"
	"slices"

	"torpor/block/logvolume/format"
)

// layer is the changes to a volume between two snapshots. No leaf has entries at
// or behind size.
type layer struct {
	id       format.LayerID
	parent   *layer
	children []*layer
	size     format.Block
	table    table

	leaves, uncounted, dirty int
	mapped                   int64 // in counted leaves

	into   *layer       // this one is being merged into it, or nil
	veiled format.Block // how far that came, behind size
	frozen *frozenLayer // while a Frozen is open that has it
}

// LayerSpec is what a layer is, besides its leaves.
type LayerSpec struct {
	ID, Parent format.LayerID // Parent 0: none
	SizeBlocks format.Block
}

// LayerStats counts what a layer itself has.
type LayerStats struct {
	Leaves      int
	DirtyLeaves int
	// MappedBlocks is of the leaves that were in memory once; there are
	// UncountedLeaves others, right after Load all of them.
	MappedBlocks    int64
	UncountedLeaves int
}

// count and uncount keep the layer's totals for a slot that appears, goes or
// gets other counts.
func (l *layer) count(s *slot) {
	if s.state&counted == 0 {
		l.uncounted++
	}
	l.mapped += int64(s.mapped())
}

func (l *layer) uncount(s *slot) {
	if s.state&counted == 0 {
		l.uncounted--
	}
	l.mapped -= int64(s.mapped())
}

// AddLayer makes a layer without leaves. It panics if there is one with this ID.
// A layer that has a child gets no new blocks any more, only other places for those
// that it has: holes and sizes of layers above rely on it. So all changes to the
// parent must be in the map before.
func (m *Map) AddLayer(spec LayerSpec) {
	if m.layers[spec.ID] != nil || spec.ID == 0 {
		panic(fmt.Sprintf("blockmap: layer %d exists", spec.ID))
	}
	l := &layer{id: spec.ID, size: spec.SizeBlocks}
	if spec.Parent != 0 {
		l.parent = m.layer(spec.Parent)
		l.parent.children = append(l.parent.children, l)
	}
	m.layers[l.id] = l
}

// Load says which leaves a layer has on disk: those of a manifest. They must not
// be in the map yet.
func (m *Map) Load(id format.LayerID, leaves []format.LeafRecord) {
	l := m.layer(id)
	for _, r := range leaves {
		m.place(l, r.Index, slot{at: r.At})
	}
}

// Has says whether there is such a layer.
func (m *Map) Has(id format.LayerID) bool { return m.layers[id] != nil }

// Layer says what a layer is.
func (m *Map) Layer(id format.LayerID) LayerSpec { return m.layer(id).spec() }

func (l *layer) spec() LayerSpec {
	s := LayerSpec{ID: l.id, SizeBlocks: l.size}
	if l.parent != nil {
		s.Parent = l.parent.id
	}
	return s
}

// Layers lists all layers by ID.
func (m *Map) Layers() []LayerSpec {
	var specs []LayerSpec
	for _, id := range slices.Sorted(maps.Keys(m.layers)) {
		specs = append(specs, m.layers[id].spec())
	}
	return specs
}

// Children lists the layers whose parent this is, the oldest first.
func (m *Map) Children(id format.LayerID) []format.LayerID {
	var ids []format.LayerID
	for _, c := range m.layer(id).children {
		ids = append(ids, c.id)
	}
	return ids
}

// Stats counts what a layer itself has.
func (m *Map) Stats(id format.LayerID) LayerStats {
	l := m.layer(id)
	return LayerStats{Leaves: l.leaves, DirtyLeaves: l.dirty, MappedBlocks: l.mapped, UncountedLeaves: l.uncounted}
}

// MergedInto returns the layer that a layer is part of now: itself if it is there.
// It is false for layers that were removed, or never were.
func (m *Map) MergedInto(id format.LayerID) (format.LayerID, bool) {
	for m.layers[id] == nil {
		into, ok := m.merged[id]
		if !ok {
			return 0, false
		}
		id = into
	}
	return id, true
}

// Merged returns the layers that were merged, and into which, each in one step.
// The caller must not change it.
func (m *Map) Merged() map[format.LayerID]format.LayerID { return m.merged }

// AddMerged says that a layer was merged into another, as a manifest says.
func (m *Map) AddMerged(id, into format.LayerID) { m.merged[id] = into }

// ForgetMerged forgets a merged layer, when nothing names it any more.
func (m *Map) ForgetMerged(id format.LayerID) { delete(m.merged, id) }

// forget removes a layer without leaves.
func (m *Map) forget(l *layer) {
	if p := l.parent; p != nil {
		p.children = slices.DeleteFunc(p.children, func(c *layer) bool { return c == l })
	}
	m.tableBytes -= l.table.bytes()
	l.table = table{}
	delete(m.layers, l.id)
	m.recent[l.id%16] = nil
}

// below says whether a layer under this one has that leaf. Where none has, there
// will never be one, because those layers do not get new blocks.
func (l *layer) below(k format.LeafIndex) bool {
	for p := l.parent; p != nil; p = p.parent {
		if s := p.table.slot(k); s != nil && s.present() {
			return true
		}
	}
	return false
}

// nextIn returns the first leaf from k on that this layer or one under it has.
func (l *layer) nextIn(k format.LeafIndex) format.LeafIndex {
	first := noLeaf
	for ; l != nil; l = l.parent {
		first = min(first, l.table.next(k))
	}
	return first
}
