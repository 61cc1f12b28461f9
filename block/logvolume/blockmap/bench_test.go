package blockmap

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"torpor/block/logvolume/format"
)

// benchmarkSizes in GiB: one whose map is in the processor's cache, and one whose
// map is not.
var benchmarkSizes = []format.Block{1, 64}

const gibBlocks = 1 << 30 / format.BlockBytes

func eachSize(b *testing.B, f func(b *testing.B, m *Map, at []format.Block)) {
	for _, gib := range benchmarkSizes {
		b.Run(strconv.Itoa(int(gib))+"GiB", func(b *testing.B) {
			m := New(func(format.Entry) {})
			m.AddLayer(LayerSpec{1, 0, gib * gibBlocks})
			fill(m, 1, 0, gib*gibBlocks)
			at := make([]format.Block, 1<<14)
			for i := range at {
				at[i] = format.Block(rand.Int64N(int64(gib * gibBlocks)))
			}
			b.ReportAllocs()
			b.ResetTimer()
			f(b, m, at)
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	eachSize(b, func(b *testing.B, m *Map, at []format.Block) {
		for i := range b.N {
			if e, _ := m.Lookup(1, at[i&(len(at)-1)]); e == 0 {
				b.Fatal(e)
			}
		}
	})
}

func BenchmarkSet(b *testing.B) {
	eachSize(b, func(b *testing.B, m *Map, at []format.Block) {
		for i := range b.N {
			m.Set(1, at[i&(len(at)-1)], format.NewEntry(format.Location(i)+1, 3))
		}
	})
}

// BenchmarkLookupChain has the entry four layers down.
func BenchmarkLookupChain(b *testing.B) {
	eachSize(b, func(b *testing.B, m *Map, at []format.Block) {
		for id := range format.LayerID(4) {
			m.AddLayer(LayerSpec{id + 2, id + 1, m.Layer(1).SizeBlocks})
			for _, at := range at {
				m.Set(id+2, at^1, format.NewEntry(1, 1))
			}
		}
		b.ResetTimer()
		for i := range b.N {
			m.Lookup(5, at[i&(len(at)-1)])
		}
	})
}

// BenchmarkLookupRange is of a request of 1 MiB.
func BenchmarkLookupRange(b *testing.B) {
	eachSize(b, func(b *testing.B, m *Map, at []format.Block) {
		entries := make([]format.Entry, 256)
		for i := range b.N {
			m.LookupRange(1, at[i&(len(at)-1)], entries)
		}
	})
}

// BenchmarkSetRange is of a request of 1 MiB.
func BenchmarkSetRange(b *testing.B) {
	eachSize(b, func(b *testing.B, m *Map, at []format.Block) {
		entries, old := make([]format.Entry, 256), make([]format.Entry, 256)
		for i := range entries {
			entries[i] = format.NewEntry(format.Location(i)+1, 3)
		}
		for i := range b.N {
			m.SetRange(1, at[i&(len(at)-1)], entries, old)
		}
	})
}

// BenchmarkFreeze is of a map with all leaves dirty; a leaf a round.
func BenchmarkFreeze(b *testing.B) {
	eachSize(b, func(b *testing.B, m *Map, _ []format.Block) {
		leaves := m.Stats(1).DirtyLeaves
		for b.Loop() {
			m.Freeze().Abandon()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(leaves), "ns/leaf")
	})
}

// BenchmarkDiscard is of a whole volume; a leaf a round.
func BenchmarkDiscard(b *testing.B) {
	const gib = 4
	m := New(func(format.Entry) {})
	m.AddLayer(LayerSpec{1, 0, gib * gibBlocks})
	for b.Loop() {
		b.StopTimer()
		fill(m, 1, 0, gib*gibBlocks)
		b.StartTimer()
		m.SetHoles(1, 0, gib*gibBlocks, func(format.Entry) {})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(gib*gibBlocks/format.LeafEntries), "ns/leaf")
}

// BenchmarkRecords is of a map with all leaves clean, in memory; a leaf a round.
func BenchmarkRecords(b *testing.B) {
	eachSize(b, func(b *testing.B, m *Map, _ []format.Block) {
		f := m.Freeze()
		leaves := f.Len()
		for _, leaf := range f.Next(1 << 30) {
			f.Written(leaf.Layer, leaf.Index, format.NewEntry(format.Location(leaf.Index)+1, 1))
		}
		f.Done()
		f = m.Freeze()
		for b.Loop() {
			r := f.Records(1)
			for !r.Step(4096) {
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(leaves), "ns/leaf")
	})
}
