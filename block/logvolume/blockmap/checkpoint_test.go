package blockmap

import (
	"maps"
	"slices"

	"github.com/google/go-cmp/cmp"
	"torpor/block/logvolume/format"
)

// checkpoint is one that is being made, and what a recovery from it must find.
type checkpoint struct {
	frozen    *Frozen
	unwritten []FrozenLeaf
	contents  []Leaf // of unwritten, as they were when frozen
	records   map[format.LayerID]*Records
	full      map[format.LayerID]bool // all steps done

	state *world // when it was frozen, without its map
}

// checkpointStep begins a checkpoint or goes on with it.
func (w *world) checkpointStep() {
	c := w.checkpoint
	switch {
	case c == nil:
		w.freeze()
	case w.chance(25):
		w.abandon()
	case len(c.unwritten) > 0:
		w.write(1 + w.rand.IntN(12))
	case len(c.full) < len(c.frozen.Layers()):
		w.collect()
	default:
		w.done()
	}
}

func (w *world) freeze() {
	c := &checkpoint{
		frozen: w.m.Freeze(), records: map[format.LayerID]*Records{}, full: map[format.LayerID]bool{}, state: w.clone(),
	}
	for _, leaf := range c.frozen.Next(1 << 30) {
		c.unwritten = append(c.unwritten, leaf)
		c.contents = append(c.contents, *leaf.Entries)
	}
	if !slices.IsSortedFunc(c.unwritten, func(a, b FrozenLeaf) int {
		return slices.Compare([]uint64{uint64(a.Layer), uint64(a.Index)}, []uint64{uint64(b.Layer), uint64(b.Index)})
	}) || c.frozen.Len() != len(c.unwritten) {
		w.t.Fatal("leaves are not in order, or not as many as it says")
	}
	w.checkpoint = c
}

// clone copies the model.
func (w *world) clone() *world {
	c := *w
	c.m = nil
	c.data, c.sizes, c.mergedInto = maps.Clone(w.data), maps.Clone(w.sizes), maps.Clone(w.mergedInto)
	c.reads = map[format.LayerID]map[format.Block]format.Entry{}
	for id, reads := range w.reads {
		c.reads[id] = maps.Clone(reads)
	}
	return &c
}

// write writes leaves in any order.
func (w *world) write(n int) {
	c := w.checkpoint
	for ; n > 0 && len(c.unwritten) > 0; n-- {
		i := w.rand.IntN(len(c.unwritten))
		leaf := c.unwritten[i]
		if *leaf.Entries != c.contents[i] {
			w.t.Fatalf("leaf %d of layer %d changed while frozen", leaf.Index, leaf.Layer)
		}
		c.unwritten = slices.Delete(c.unwritten, i, i+1)
		at := w.newEntry()
		w.disk[at] = c.contents[i]
		w.places[at] = true
		c.contents = slices.Delete(c.contents, i, i+1)
		c.frozen.Written(leaf.Layer, leaf.Index, at)
	}
}

// collect makes a step in one of the layers, or begins with another.
func (w *world) collect() {
	c := w.checkpoint
	for _, spec := range c.frozen.Layers() {
		if c.full[spec.ID] {
			continue
		}
		if c.records[spec.ID] == nil {
			c.records[spec.ID] = c.frozen.Records(spec.ID)
		}
		if c.records[spec.ID].Step(1 + w.rand.IntN(5)) {
			c.full[spec.ID] = true
		}
		if w.chance(2) {
			return
		}
	}
}

func (w *world) abandon() {
	w.checkpoint.frozen.Abandon()
	w.checkpoint = nil
	w.abandoned++
}

// done recovers from the checkpoint, compares that with what was when it was frozen,
// and ends it; or the world goes on with what was recovered.
func (w *world) done() {
	c := w.checkpoint
	recovered := w.recover(c)
	if diff := cmp.Diff(recovered.places, w.places); diff != "" {
		w.t.Fatalf("leaves named by the manifest, and not released (+):\n%s", diff)
	}
	w.recoveries++
	if w.chance(4) {
		recovered.loads, recovered.recoveries, recovered.abandoned = w.loads, w.recoveries, w.abandoned
		*w = *recovered
		w.m.released = w.release
		return
	}
	recovered.check()
	recovered.checkStructure()
	c.frozen.Done()
	w.checkpoint = nil
}

// recover makes the world that a checkpoint describes.
func (w *world) recover(c *checkpoint) *world {
	r := c.state
	r.places = map[format.Entry]bool{}
	r.m = New(r.release)
	r.m.keepClean = w.m.keepClean
	r.nextLayer, r.nextAt = w.nextLayer, w.nextAt
	for id, into := range r.mergedInto {
		r.m.AddMerged(id, into)
	}
	for len(r.m.layers) < len(c.frozen.Layers()) { // parents may be younger than children
		for _, spec := range c.frozen.Layers() {
			if r.m.Has(spec.ID) || spec.Parent != 0 && !r.m.Has(spec.Parent) {
				continue
			}
			if spec.SizeBlocks != r.sizes[spec.ID] {
				w.t.Fatalf("%+v: want size %d", spec, r.sizes[spec.ID])
			}
			leaves := c.records[spec.ID].Leaves()
			r.m.AddLayer(spec)
			r.m.Load(spec.ID, leaves)
			for i, l := range leaves {
				if r.places[l.At] || i > 0 && leaves[i-1].Index >= l.Index {
					w.t.Fatalf("layer %d: leaf %d at %x is out of order, or named twice", spec.ID, l.Index, l.At)
				}
				r.places[l.At] = true
			}
		}
	}
	if r.merging != 0 {
		r.mergeLeaves(0)
	}
	return r
}

// check compares all that can be read with the model.
func (w *world) check() {
	w.t.Helper()
	for id, reads := range w.reads {
		for _, k := range leafPool {
			w.checkLeaf(id, k, reads)
		}
	}
	w.checkWalk()
	for id, into := range w.mergedInto {
		for w.mergedInto[into] != 0 {
			into = w.mergedInto[into]
		}
		got, ok := w.m.MergedInto(id)
		if ok != w.m.Has(into) || ok && got != into {
			w.t.Fatalf("layer %d is merged into %d, %v; want %d", id, got, ok, into)
		}
	}
}

func (w *world) checkLeaf(id format.LayerID, k format.LeafIndex, reads map[format.Block]format.Entry) {
	w.t.Helper()
	first := firstBlock(k)
	if first > 300 {
		first -= 300
	}
	first += format.Block(w.rand.IntN(300))
	entries := make([]format.Entry, 400+w.rand.IntN(400))
	rest, b := entries, first
	w.retry(func() *Missing {
		n, missing := w.m.LookupRange(id, b, rest)
		b += format.Block(n)
		rest = rest[n:]
		return missing
	})
	single := w.rand.IntN(len(entries))
	for i, e := range entries {
		b := first + format.Block(i)
		if i == single {
			w.retry(func() (missing *Missing) {
				e, missing = w.m.Lookup(id, b)
				return missing
			})
		}
		if e.Mapped() && e != reads[b] || !e.Mapped() && reads[b] != 0 {
			w.t.Fatalf("layer %d block %d (leaf %d): %x, want %x", id, b, k, e, reads[b])
		}
	}
}

// checkWalk compares what all layers map with the locations in use.
func (w *world) checkWalk() {
	w.t.Helper()
	all := map[format.Entry]bool{}
	for id := range w.sizes {
		mapped := int64(0)
		from := format.Block(0)
		w.retry(func() (missing *Missing) {
			for from < format.MaxBlock && missing == nil {
				from, missing = w.m.Walk(id, from, func(b format.Block, e format.Entry) bool {
					if all[e] || !w.data[e] || b >= w.sizes[id] {
						w.t.Fatalf("layer %d block %d: %x is there twice, not in use, or behind the end", id, b, e)
					}
					all[e] = true
					mapped++
					return !w.chance(300)
				})
			}
			return missing
		})
		if s := w.m.Stats(id); s.MappedBlocks != mapped || s.UncountedLeaves != 0 {
			w.t.Fatalf("layer %d: %+v, mapped %d", id, s, mapped)
		}
	}
	if len(all) != len(w.data) {
		w.t.Fatalf("%d locations are mapped, %d in use", len(all), len(w.data))
	}
}

// checkStructure recounts what the map keeps.
func (w *world) checkStructure() {
	w.t.Helper()
	m := w.m
	var framesUsed, dirtyLeaves int
	var tableBytes int64
	for id, l := range m.layers {
		leaves, uncounted, dirtyHere := 0, 0, 0
		tableBytes += l.table.bytes()
		for _, g := range l.table.groups {
			if g == nil {
				continue
			}
			for _, c := range g.chunks {
				if c != nil {
					tableBytes += chunkBytes
				}
			}
		}
		for k := l.table.next(0); k < noLeaf; k = l.table.next(k + 1) {
			s := l.table.slot(k)
			leaves++
			w.checkSlot(l, k, s)
			if s.state&counted == 0 {
				uncounted++
			}
			if s.state&dirty != 0 {
				dirtyHere++
			}
			if s.frame != 0 {
				framesUsed++
			}
		}
		if leaves != l.leaves || uncounted != l.uncounted || dirtyHere != l.dirty {
			w.t.Fatalf("layer %d: counts %d %d %d, are %d %d %d", id, l.leaves, l.uncounted, l.dirty, leaves, uncounted, dirtyHere)
		}
		dirtyLeaves += dirtyHere
	}
	for i, s := range m.frames.slabs {
		for j, o := range s.owners {
			if n := frame(i*slabFrames + j); n > 0 && o == (owner{}) && s.free>>j&1 == 0 {
				framesUsed++ // the Frozen's
			}
		}
	}
	if framesUsed != m.frames.used || int64(dirtyLeaves)*leafBytes != m.DirtyBytes() || tableBytes != m.tableBytes {
		w.t.Fatalf("frames %d, are %d; dirty %d, are %d; tables %d, are %d", m.frames.used, framesUsed, m.dirty, dirtyLeaves, m.tableBytes, tableBytes)
	}
}

func (w *world) checkSlot(l *layer, k format.LeafIndex, s *slot) {
	w.t.Helper()
	if s.frame == 0 {
		if s.at == 0 || s.state&(dirty|frozen) != 0 {
			w.t.Fatalf("layer %d leaf %d: %+v", l.id, k, s)
		}
		return
	}
	if o := *w.m.frames.owner(s.frame); o != (owner{l.id, k}) {
		w.t.Fatalf("layer %d leaf %d: its frame is owned by %+v", l.id, k, o)
	}
	var counts state
	for _, e := range w.m.frames.leaf(s.frame) {
		counts += weight(e)
	}
	if counts != s.state&(1<<20-1) || counts == 0 || s.state&counted == 0 {
		w.t.Fatalf("layer %d leaf %d: state %x, counts %x", l.id, k, s.state, counts)
	}
}
