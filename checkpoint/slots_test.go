package checkpoint

import (
	"math/rand/v2"
	"testing"

	"torpor/kernel/proc"
)

// modelMapping is a mapping of a modelled tree: what it maps of the image now.
type modelMapping struct {
	len    uint64
	mapped bool // from the image, at offset
	offset ImageOffset
}

const modelInode = 42

// dump makes what the engine sees of the model.
func (m modelMapping) mapping() *mapping {
	v := &proc.VMA{Start: 0x1000, End: proc.Addr(0x1000 + m.len)}
	d := &mapping{vma: v, spec: VMASpec{Start: v.Start, End: v.End, Kind: VMAImage}, fresh: !m.mapped}
	if m.mapped {
		v.Inode, v.Offset = modelInode, uint64(m.offset)
		d.spec.Offset = m.offset
	}
	return d
}

// TestSlots runs random trees through many dumps: mappings come, go, grow,
// shrink, split and are shared by forks.
func TestSlots(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		pages := func() uint64 { return uint64(1+r.IntN(1<<r.IntN(20))) * proc.PageBytes }
		var tree []modelMapping
		for dump := range 12 {
			for range r.IntN(6) {
				tree = append(tree, modelMapping{len: pages()})
			}
			for i := range tree {
				m := &tree[i]
				switch r.IntN(10) {
				case 0:
					m.len += pages() // mremap: over the hole behind it
				case 1:
					tree = append(tree, *m) // a fork
				case 2:
					if m.len > 2*proc.PageBytes { // munmap in the middle
						tree = append(tree, modelMapping{m.len - 2*proc.PageBytes, m.mapped, m.offset + 2*proc.PageBytes})
						m.len = proc.PageBytes
					}
				case 3:
					*m = modelMapping{len: pages()} // unmapped, another one
				}
			}
			checkSlots(t, tree)
			if t.Failed() {
				t.Fatalf("with seed %d, dump %d", seed, dump)
			}
		}
	}
}

// checkSlots assigns slots and makes the tree as it is after the wake.
func checkSlots(t *testing.T, tree []modelMapping) {
	t.Helper()
	var mappings []*mapping
	for _, m := range tree {
		mappings = append(mappings, m.mapping())
	}
	table, err := assignSlots(mappings)
	if err != nil {
		t.Error(err)
		return
	}
	overlap := func(a, aLen, b, bLen uint64) bool { return a < b+bLen && b < a+aLen }
	for i, m := range mappings {
		start, size := uint64(m.spec.Offset), m.spec.Len()
		if start%proc.PageBytes != 0 || start+size > uint64(2*imageLimit) {
			t.Errorf("slot at %x of %x bytes", start, size)
		}
		if !m.fresh && (!tree[i].mapped || m.spec.Offset != tree[i].offset) {
			t.Errorf("mapping %d is not fresh but moves from %x to %x", i, tree[i].offset, start)
		}
		for j, other := range mappings {
			if i == j {
				continue
			}
			if overlap(start, size, uint64(other.spec.Offset), other.spec.Len()) {
				t.Errorf("slots %x+%x and %x+%x overlap", start, size, other.spec.Offset, other.spec.Len())
			}
			// A fresh slot and its gap are cleared while all old ones are mapped.
			if m.fresh && overlap(start, size+uint64(table.gap), uint64(other.spec.Offset), other.spec.Len()) {
				t.Errorf("gap of slot %x+%x meets slot %x", start, size, other.spec.Offset)
			}
			if tree[j].mapped && m.fresh && overlap(start, size+uint64(table.gap), uint64(tree[j].offset), tree[j].len) {
				t.Errorf("slot %x+%x is cleared while %x+%x is mapped", start, size, tree[j].offset, tree[j].len)
			}
			// What is written in place may be seen by nobody else.
			if tree[j].mapped && !m.fresh && overlap(start, size, uint64(tree[j].offset), tree[j].len) {
				t.Errorf("slot %x+%x is written while another maps %x+%x", start, size, tree[j].offset, tree[j].len)
			}
		}
	}
	for i, m := range mappings {
		tree[i].mapped, tree[i].offset = true, m.spec.Offset
	}
}
