package blockmap

import (
	"math/rand/v2"
	"testing"

	"torpor/block/logvolume/format"
)

// TestCopies changes leaves while a checkpoint writes them, at random: those that
// are in memory twice come first, as they were, and are counted until written.
func TestCopies(t *testing.T) {
	const leaves = 300
	for range 30 {
		m := New(func(format.Entry) {})
		m.AddLayer(LayerSpec{ID: 1, SizeBlocks: leaves * format.LeafEntries})
		for k := range format.LeafIndex(leaves) {
			m.Set(1, firstBlock(k), entry(int(k)+1))
		}
		f := m.Freeze()
		taken, written, twice := map[format.LeafIndex]bool{}, map[format.LeafIndex]bool{}, map[format.LeafIndex]bool{}
		var open []FrozenLeaf
		for len(written) < leaves {
			switch rand.IntN(3) {
			case 0:
				k := format.LeafIndex(rand.IntN(leaves))
				m.Set(1, firstBlock(k), entry(1000+rand.IntN(1000)))
				twice[k] = twice[k] || !written[k]
			case 1:
				waiting := 0
				for k := range twice {
					if !taken[k] {
						waiting++
					}
				}
				for i, leaf := range f.Next(1 + rand.IntN(20)) {
					if taken[leaf.Index] || i < waiting && !twice[leaf.Index] {
						t.Fatalf("leaf %d is number %d, taken %v; %d that are there twice wait", leaf.Index, i, taken[leaf.Index], waiting)
					}
					taken[leaf.Index] = true
					open = append(open, leaf)
				}
			case 2:
				if len(open) == 0 {
					continue
				}
				leaf := open[0]
				open = open[1:]
				if leaf.Entries[0] != entry(int(leaf.Index)+1) {
					t.Fatalf("leaf %d starts with %x", leaf.Index, leaf.Entries[0])
				}
				f.Written(1, leaf.Index, entry(5000+int(leaf.Index)))
				written[leaf.Index] = true
			}
			copies := 0
			for k := range twice {
				if !written[k] {
					copies++
				}
			}
			if f.Copies() != copies {
				t.Fatalf("%d copies, want %d", f.Copies(), copies)
			}
		}
		if len(f.Next(1)) > 0 {
			t.Fatal("more leaves than there are")
		}
		f.Done()
	}
}
