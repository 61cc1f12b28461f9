package blockmap

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"torpor/block/logvolume/format"
)

// world is a log that has a map, a disk for leaves and nothing else, beside a
// model of what each volume and snapshot reads.
type world struct {
	t    *testing.T
	rand *rand.Rand
	m    *Map

	nextLayer format.LayerID
	nextAt    format.Location
	disk      map[format.Entry]Leaf
	places    map[format.Entry]bool // of leaves; not released yet
	data      map[format.Entry]bool // not reported as old yet
	reads     map[format.LayerID]map[format.Block]format.Entry
	sizes     map[format.LayerID]format.Block

	merging, mergingInto, removing format.LayerID // steps are under way; 0: none
	mergedInto                     map[format.LayerID]format.LayerID
	checkpoint                     *checkpoint
	loads, recoveries, abandoned   int
}

// leafPool is which leaves the model uses: neighbours, and some in other chunks and groups.
var leafPool = []format.LeafIndex{0, 1, 2, 3, 510, 511, 512, 513, 1<<18 - 1, 1 << 18, 1<<18 + 1, 1<<20 + 5}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), nextLayer: 1, nextAt: 1,
		disk: map[format.Entry]Leaf{}, places: map[format.Entry]bool{}, data: map[format.Entry]bool{},
		reads: map[format.LayerID]map[format.Block]format.Entry{}, sizes: map[format.LayerID]format.Block{},
		mergedInto: map[format.LayerID]format.LayerID{},
	}
	w.m = New(w.release)
	w.m.keepClean = 20
	w.addLayer(0)
	return w
}

// release takes a place of a leaf that the map does not need any more.
func (w *world) release(at format.Entry) {
	if !w.places[at] {
		w.t.Fatalf("place %x of a leaf released twice or never used", at)
	}
	delete(w.places, at)
}

// old takes a location that the map does not need any more.
func (w *world) old(e format.Entry) {
	w.t.Helper()
	if !w.data[e] {
		w.t.Fatalf("location %x reported twice or never used", e)
	}
	delete(w.data, e)
}

func (w *world) newEntry() format.Entry {
	e := format.NewEntry(w.nextAt, w.rand.Uint32())
	w.nextAt++
	return e
}

func (w *world) newData() format.Entry {
	e := w.newEntry()
	w.data[e] = true
	return e
}

// retry calls f until it misses nothing.
func (w *world) retry(f func() *Missing) {
	w.t.Helper()
	for n := 0; ; n++ {
		missing := f()
		if missing == nil {
			return
		}
		if n > 1000 {
			w.t.Fatalf("still missing %+v", missing)
		}
		w.load(missing)
	}
}

func (w *world) load(missing *Missing) {
	w.t.Helper()
	if !w.places[missing.At] {
		w.t.Fatalf("%+v is missing from a place that was released", missing)
	}
	leaf := w.disk[missing.At]
	stale := *missing
	stale.At++
	w.m.Put(stale, &Leaf{}) // is ignored
	w.m.Put(*missing, &leaf)
	w.loads++
}

func (w *world) chance(n int) bool { return w.rand.IntN(n) == 0 }

// pick returns a random layer for which ok holds, or 0.
func (w *world) pick(ok func(format.LayerID) bool) format.LayerID {
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(w.sizes)), func(id format.LayerID) bool { return !ok(id) })
	if len(ids) == 0 {
		return 0
	}
	return ids[w.rand.IntN(len(ids))]
}

func (w *world) writable(id format.LayerID) bool {
	return len(w.m.Children(id)) == 0 && id != w.removing
}

func (w *world) block() format.Block {
	k := leafPool[w.rand.IntN(len(leafPool))]
	i := w.rand.IntN(format.LeafEntries)
	if w.chance(2) {
		i = w.rand.IntN(4) * 170
	}
	return firstBlock(k) + format.Block(i)
}

func (w *world) addLayer(parent format.LayerID) {
	id := w.nextLayer
	w.nextLayer++
	w.sizes[id] = w.block() + 1
	w.reads[id] = map[format.Block]format.Entry{}
	if parent != 0 {
		w.reads[id] = maps.Clone(w.reads[parent])
		if w.chance(2) {
			w.sizes[id] = w.sizes[parent]
		}
	}
	behind(w.reads[id], w.sizes[id])
	w.m.AddLayer(LayerSpec{id, parent, w.sizes[id]})
}

// behind removes what is behind the end.
func behind(reads map[format.Block]format.Entry, size format.Block) {
	maps.DeleteFunc(reads, func(b format.Block, _ format.Entry) bool { return b >= size })
}

func (w *world) set() {
	id := w.pick(w.writable)
	if id == 0 {
		return
	}
	b, e := w.block(), w.newData()
	w.retry(func() *Missing {
		old, missing := w.m.Set(id, b, e)
		if missing == nil && old.Mapped() {
			w.old(old)
		}
		return missing
	})
	if b < w.sizes[id] {
		w.reads[id][b] = e
	}
}

func (w *world) setRange() {
	id := w.pick(w.writable)
	if id == 0 {
		return
	}
	start := w.block()
	entries := make([]format.Entry, 1+w.rand.IntN(1300))
	for i := range entries {
		entries[i] = w.newData()
		if b := start + format.Block(i); b < w.sizes[id] {
			w.reads[id][b] = entries[i]
		}
	}
	w.retry(func() *Missing {
		old := make([]format.Entry, len(entries))
		n, missing := w.m.SetRange(id, start, entries, old)
		for _, e := range old[:n] {
			if e.Mapped() {
				w.old(e)
			}
		}
		start += format.Block(n)
		entries = entries[n:]
		return missing
	})
}

func (w *world) setHoles() {
	id := w.pick(w.writable)
	if id == 0 {
		return
	}
	start, count := w.block(), uint64(1+w.rand.IntN(3000))
	switch w.rand.IntN(8) {
	case 0:
		start, count = 0, uint64(w.sizes[id])
	case 1:
		count = 1
	}
	maps.DeleteFunc(w.reads[id], func(b format.Block, _ format.Entry) bool {
		return b >= start && b < start+format.Block(count)
	})
	w.retry(func() *Missing {
		done, missing := w.m.SetHoles(id, start, count, w.old)
		start += format.Block(done)
		count -= done
		return missing
	})
}

// relocate does what the cleaner does: the same content, elsewhere.
func (w *world) relocate() {
	id := w.pick(func(format.LayerID) bool { return true })
	b := w.block()
	if own := slices.Sorted(maps.Keys(w.reads[id])); len(own) > 0 {
		b = own[w.rand.IntN(len(own))]
	}
	var from format.Entry
	w.retry(func() (missing *Missing) {
		from, missing = w.m.Own(id, b)
		return missing
	})
	if !from.Mapped() {
		return
	}
	w.checkHolder(id, b, from)
	to := w.newData()
	w.retry(func() *Missing {
		old, missing := w.m.Set(id, b, to)
		if missing == nil {
			if old != from {
				w.t.Fatalf("layer %d block %d: own %x, old %x", id, b, from, old)
			}
			w.old(old)
		}
		return missing
	})
	for _, reads := range w.reads {
		if reads[b] == from {
			reads[b] = to
		}
	}
}

// checkHolder asks for a location by each name that its layer has or had.
func (w *world) checkHolder(holder format.LayerID, b format.Block, e format.Entry) {
	w.t.Helper()
	place := w.m.LeafAt(holder, format.LeafIndex(b/format.LeafEntries))
	for id := format.LayerID(1); id < w.nextLayer; id++ {
		want := format.LayerID(0)
		now := id
		for w.mergedInto[now] != 0 {
			now = w.mergedInto[now]
		}
		if now == holder || now == w.merging && w.mergingInto == holder {
			want = holder
		}
		w.retry(func() *Missing {
			got, missing := w.m.Holder(id, b, e)
			if missing == nil && got != want {
				w.t.Fatalf("layer %d block %d: its holder is %d, want %d", id, b, got, want)
			}
			return missing
		})
		if got := w.m.LeafHolder(id, format.LeafIndex(b/format.LeafEntries), place); place != 0 && got != want {
			w.t.Fatalf("layer %d leaf of block %d: its holder is %d, want %d", id, b, got, want)
		}
	}
}

func (w *world) addOrRemove() {
	whole := func(id format.LayerID) bool { return id != w.merging && id != w.removing }
	switch {
	case len(w.sizes) < 9:
		parent := w.pick(whole)
		if w.chance(6) {
			parent = 0
		}
		w.addLayer(parent)
	case w.removing == 0:
		w.removing = w.pick(func(id format.LayerID) bool {
			return len(w.m.Children(id)) == 0 && id != w.mergingInto
		})
		delete(w.reads, w.removing)
	}
}

func (w *world) removeStep() {
	id := w.removing
	if id == 0 {
		return
	}
	done := false
	w.retry(func() (missing *Missing) {
		done, missing = w.m.Remove(id, 1+w.rand.IntN(3), w.old)
		return missing
	})
	if done {
		delete(w.sizes, id)
		w.removing = 0
	}
}

func (w *world) mergeStep() {
	if w.merging == 0 {
		w.merging = w.pick(func(id format.LayerID) bool {
			children := w.m.Children(id)
			return len(children) == 1 && children[0] != w.removing
		})
		if w.merging == 0 {
			return
		}
		w.mergingInto = w.m.Children(w.merging)[0]
		delete(w.reads, w.merging)
	}
	w.mergeLeaves(1 + w.rand.IntN(3))
}

func (w *world) mergeLeaves(n int) {
	done := false
	w.retry(func() (missing *Missing) {
		done, missing = w.m.Merge(w.merging, w.mergingInto, n, w.old)
		return missing
	})
	if done {
		w.mergedInto[w.merging] = w.mergingInto
		delete(w.sizes, w.merging)
		w.merging, w.mergingInto = 0, 0
	}
}

func (w *world) resize() {
	id := w.pick(w.writable)
	if id == 0 {
		return
	}
	size := w.block() + format.Block(w.rand.IntN(2))
	w.sizes[id] = size
	behind(w.reads[id], size)
	done := false
	for !done {
		w.retry(func() (missing *Missing) {
			done, missing = w.m.Resize(id, size, 1+w.rand.IntN(3), w.old)
			return missing
		})
	}
}

func (w *world) markDirty() {
	id := w.pick(func(format.LayerID) bool { return true })
	k := leafPool[w.rand.IntN(len(leafPool))]
	w.retry(func() *Missing { return w.m.MarkDirty(id, k) })
}

func (w *world) limit() {
	w.m.SetLimit(int64(w.rand.IntN(40)+12) * leafBytes)
	w.m.Evict(w.rand.IntN(200))
}
