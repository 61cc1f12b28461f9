package blockmap

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"torpor/block/logvolume/format"
)

func nothing(format.Entry) {}

func entry(n int) format.Entry { return format.NewEntry(format.Location(n), uint32(n)) }

func mustSet(t *testing.T, m *Map, id format.LayerID, b format.Block, e format.Entry) {
	t.Helper()
	if _, missing := m.Set(id, b, e); missing != nil {
		t.Fatalf("set block %d: %+v", b, *missing)
	}
}

// TestWriteWhileFrozen writes a checkpoint without the lock while others change
// the map.
func TestWriteWhileFrozen(t *testing.T) {
	const leaves = 200
	m := New(nothing)
	m.AddLayer(LayerSpec{1, 0, leaves * format.LeafEntries})
	for k := range leaves {
		mustSet(t, m, 1, firstBlock(format.LeafIndex(k)), entry(k+1))
	}
	var lock sync.Mutex
	f := m.Freeze()
	ended := make(chan bool)
	var group sync.WaitGroup
	group.Go(func() {
		for n := leaves + 1; ; n++ {
			select {
			case <-ended:
				return
			default:
			}
			lock.Lock()
			k := format.LeafIndex(rand.IntN(leaves))
			if n%5 == 0 {
				m.SetHoles(1, firstBlock(k), format.LeafEntries, nothing)
			} else {
				m.Set(1, firstBlock(k), entry(n))
			}
			lock.Unlock()
		}
	})
	next := func() []FrozenLeaf {
		lock.Lock()
		defer lock.Unlock()
		return f.Next(1)
	}
	for leaves := next(); len(leaves) > 0; leaves = next() {
		leaf := leaves[0]
		if leaf.Entries[0] != entry(int(leaf.Index)+1) {
			t.Errorf("leaf %d starts with %x", leaf.Index, leaf.Entries[0])
		}
		lock.Lock()
		f.Written(leaf.Layer, leaf.Index, entry(1_000_000+int(leaf.Index)))
		lock.Unlock()
	}
	lock.Lock()
	r := f.Records(1)
	for !r.Step(10) {
		lock.Unlock()
		lock.Lock()
	}
	lock.Unlock()
	got := r.Leaves()
	close(ended)
	group.Wait()
	f.Done()
	for i, l := range got {
		if int(l.Index) != i || l.At != entry(1_000_000+i) {
			t.Fatalf("record %d is %+v", i, l)
		}
	}
	if len(got) != leaves {
		t.Errorf("%d records", len(got))
	}
}

// onDisk returns a map with a layer that has leaves, all on disk only, and the
// function that loads one. Each leaf maps all its blocks.
func onDisk(size format.Block) (*Map, func(*Missing)) {
	m := New(nothing)
	m.AddLayer(LayerSpec{1, 0, size})
	k, _ := split(size - 1)
	var records []format.LeafRecord
	for i := range k + 1 {
		records = append(records, format.LeafRecord{Index: i, At: entry(int(i) + 1)})
	}
	m.Load(1, records)
	return m, func(missing *Missing) {
		var leaf Leaf
		for i := range leaf {
			if b := firstBlock(missing.Leaf) + format.Block(i); b < size {
				leaf[i] = entry(int(b) + 1000)
			}
		}
		m.Put(*missing, &leaf)
	}
}

// TestResizeGoesOnAfterRecovery shrinks a volume, has a crash after a checkpoint in
// the middle, and finishes.
func TestResizeGoesOnAfterRecovery(t *testing.T) {
	const size, smaller = 10 * format.LeafEntries, 2*format.LeafEntries + 100
	m, load := onDisk(size)
	dropped := map[format.Entry]bool{}
	old := func(e format.Entry) { dropped[e] = true }
	for range 4 { // trims one leaf, drops two of seven
		if _, missing := m.Resize(1, smaller, 100, old); missing != nil {
			load(missing)
		}
	}
	f := m.Freeze()
	leaves := map[format.LeafIndex]Leaf{}
	for _, leaf := range f.Next(1 << 30) {
		leaves[leaf.Index] = *leaf.Entries
		f.Written(1, leaf.Index, entry(int(leaf.Index)+100))
	}
	r := f.Records(1)
	r.Step(100)
	spec := f.Layers()[0]
	if spec.SizeBlocks != smaller || len(leaves) != 1 || len(r.Leaves()) != 8 {
		t.Fatalf("frozen: %+v with %d leaves, %d records; want one leaf and 8 records", spec, len(leaves), len(r.Leaves()))
	}

	*m = *New(nothing)
	m.AddLayer(spec)
	m.Load(1, r.Leaves())
	for done := false; !done; {
		var missing *Missing
		if done, missing = m.Resize(1, smaller, 100, old); missing != nil {
			load(missing)
		}
	}
	if len(dropped) != size-smaller {
		t.Errorf("%d locations dropped, want %d", len(dropped), size-smaller)
	}
	if s := m.Stats(1); s.Leaves != 3 {
		t.Errorf("%+v", s)
	}
}

func TestAbsent(t *testing.T) {
	m, load := onDisk(6 * format.LeafEntries)
	load(&Missing{1, 2, entry(3)})
	indexes := func(start format.Block, count uint64, most int) []format.LeafIndex {
		var all []format.LeafIndex
		for _, missing := range m.Absent(1, start, count, most) {
			all = append(all, missing.Leaf)
		}
		return all
	}
	for _, c := range []struct {
		start format.Block
		count uint64
		most  int
		want  []format.LeafIndex
	}{
		{0, 1 << 40, 100, []format.LeafIndex{0, 1, 3, 4, 5}},
		{0, 1 << 40, 2, []format.LeafIndex{0, 1}},
		{1023, 1, 9, []format.LeafIndex{1}},
		{1023, 2, 9, []format.LeafIndex{1}},
		{1023, 514, 9, []format.LeafIndex{1, 3}},
		{1024, 512, 9, nil},
		{6 * 512, 9, 9, nil},
	} {
		if diff := cmp.Diff(c.want, indexes(c.start, c.count, c.most)); diff != "" {
			t.Errorf("from %d, %d blocks:\n%s", c.start, c.count, diff)
		}
	}
}

// TestLookupRangeGoesOn reads over leaves that are missing, one after the other.
func TestLookupRangeGoesOn(t *testing.T) {
	m, load := onDisk(5 * format.LeafEntries)
	entries := make([]format.Entry, 5*format.LeafEntries)
	var stops []int
	for n := 0; n < len(entries); {
		more, missing := m.LookupRange(1, format.Block(n), entries[n:])
		n += more
		if missing != nil {
			stops = append(stops, n)
			load(missing)
		}
	}
	if want := []int{0, 512, 1024, 1536, 2048}; !slices.Equal(stops, want) {
		t.Errorf("stopped at %d, want %d", stops, want)
	}
	for i, e := range entries {
		if e != entry(i+1000) {
			t.Fatalf("block %d: %x", i, e)
		}
	}
}

// TestBrokenInvariants has the callers' mistakes.
func TestBrokenInvariants(t *testing.T) {
	for name, f := range map[string]func(m *Map){
		"unknown layer":        func(m *Map) { m.Lookup(9, 0) },
		"layer twice":          func(m *Map) { m.AddLayer(LayerSpec{1, 0, 1}) },
		"unknown parent":       func(m *Map) { m.AddLayer(LayerSpec{3, 9, 1}) },
		"remove a parent":      func(m *Map) { m.Remove(1, 1, nothing) },
		"resize a parent":      func(m *Map) { m.Resize(1, 1, 1, nothing) },
		"merge into no child":  func(m *Map) { m.Merge(2, 1, 1, nothing) },
		"freeze twice":         func(m *Map) { m.Freeze(); m.Freeze() },
		"done without writing": func(m *Map) { m.Freeze().Done() },
		"records too early":    func(m *Map) { m.Freeze().Records(2) },
		"write what is clean":  func(m *Map) { m.Freeze().Written(2, 7, entry(1)) },
		"go on after the end":  func(m *Map) { f := m.Freeze(); f.Abandon(); f.Abandon() },
	} {
		m := New(nothing)
		m.AddLayer(LayerSpec{1, 0, 100})
		m.AddLayer(LayerSpec{2, 1, 100})
		mustSet(t, m, 2, 1, entry(1))
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(m)
		}()
	}
}
