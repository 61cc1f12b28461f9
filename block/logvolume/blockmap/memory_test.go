package blockmap

import (
	"runtime"
	"testing"

	"torpor/block/logvolume/format"
)

func fill(m *Map, id format.LayerID, from, to format.Block) {
	entries, old := make([]format.Entry, 2048), make([]format.Entry, 2048)
	for b := from; b < to; b += 2048 {
		for i := range entries {
			entries[i] = format.NewEntry(format.Location(b)+format.Location(i)+1, uint32(i))
		}
		m.SetRange(id, b, entries, old)
	}
}

func heapBytes() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapInuse + s.StackInuse + s.MSpanInuse + s.GCSys)
}

// TestMemory maps 16 GiB more and expects of 1 TiB that all memory, also the
// allocator's, is less than 2.2 GB.
func TestMemory(t *testing.T) {
	const gib = 1 << 30 / format.BlockBytes
	m := New(func(format.Entry) {})
	m.AddLayer(LayerSpec{1, 0, 1024 * gib})
	fill(m, 1, 0, 4*gib)
	before, claimedBefore := heapBytes(), m.MemoryBytes()
	fill(m, 1, 4*gib, 20*gib)
	took, claimed := heapBytes()-before, m.MemoryBytes()-claimedBefore
	t.Logf("1 TiB: %d bytes; the map says %d", took*64, claimed*64)
	if took*64 > 2_200_000_000 {
		t.Errorf("1 TiB takes %d bytes", took*64)
	}
	if claimed < took*97/100 || claimed > took*103/100 {
		t.Errorf("takes %d bytes, says %d", took, claimed)
	}
	runtime.KeepAlive(m)
}

// TestMemorySparse writes one block at each end of the largest volume.
func TestMemorySparse(t *testing.T) {
	m := New(func(format.Entry) {})
	m.AddLayer(LayerSpec{1, 0, format.MaxBlock})
	before := heapBytes()
	for _, b := range []format.Block{0, format.MaxBlock - 1} {
		if _, missing := m.Set(1, b, format.NewEntry(1, 1)); missing != nil {
			t.Fatal(missing)
		}
	}
	took := heapBytes() - before
	t.Logf("%d bytes", took)
	if took > 512<<10 {
		t.Errorf("two blocks of 4 PiB take %d bytes", took)
	}
	runtime.KeepAlive(m)
}

// TestMemoryIsGivenBack drops what was mapped.
func TestMemoryIsGivenBack(t *testing.T) {
	const gib = 1 << 30 / format.BlockBytes
	m := New(func(format.Entry) {})
	m.AddLayer(LayerSpec{1, 0, 4 * gib})
	empty := m.MemoryBytes()
	fill(m, 1, 0, 4*gib)
	released := 0
	if done, missing := m.SetHoles(1, 0, 4*gib, func(format.Entry) { released++ }); done != 4*gib || missing != nil || released != 4*gib {
		t.Fatalf("done %d, missing %v, released %d", done, missing, released)
	}
	if grown := m.MemoryBytes() - empty; grown > 1<<20 {
		t.Errorf("%d bytes are left", grown)
	}
}

// TestEviction loads ten times the limit.
func TestEviction(t *testing.T) {
	const leaves, limit = 20000, 2000
	m := New(func(format.Entry) {})
	m.AddLayer(LayerSpec{1, 0, format.MaxBlock})
	m.SetLimit(limit * leafBytes)
	var records []format.LeafRecord
	for k := range format.LeafIndex(leaves) {
		records = append(records, format.LeafRecord{Index: k, At: format.NewEntry(format.Location(k)+1, 7)})
	}
	m.Load(1, records)
	hot := firstBlock(17)
	for k := range format.LeafIndex(leaves) {
		for _, b := range []format.Block{firstBlock(k), hot} {
			_, missing := m.Lookup(1, b)
			if b == hot && missing != nil && k > 17 {
				t.Fatalf("at leaf %d the one that is always used was evicted", k)
			}
			if missing != nil {
				m.Put(*missing, &Leaf{0: format.NewEntry(1, 1)})
			}
		}
		if n := m.LeavesInMemory(); n > limit+64 {
			t.Fatalf("%d leaves in memory", n)
		}
	}
	m.SetLimit(limit / 2 * leafBytes)
	for m.Evict(100) {
	}
	if n := m.LeavesInMemory(); n > limit/2 {
		t.Errorf("%d leaves in memory", n)
	}
}
