package blockmap

import (
	"math/bits"

	"torpor/block/logvolume/format"
)

// A table holds the slots of a layer's leaves in three levels: groups of 512
// chunks of 512 slots, which is 1 GiB of blocks a chunk and 512 GiB a group.
type table struct {
	groups []*group
}

type group struct {
	chunks [512]*chunk
	dirty  bitmap // chunks that may have dirty slots
}

type chunk struct {
	slots   [512]slot
	present bitmap
	dirty   bitmap
}

// noLeaf is behind the last leaf of any layer.
const noLeaf = format.LeafIndex(format.MaxBlock / format.LeafEntries)

// What the allocator takes for a group and a chunk.
const (
	groupBytes = 4864
	chunkBytes = 9472
)

// slot is what a layer knows of a leaf. It is absent if both at and frame are 0.
type slot struct {
	at    format.Entry // on disk; 0: nowhere
	frame frame        // in memory; 0: not
	state state
}

func (s *slot) present() bool { return s.at != 0 || s.frame != 0 }
func (s *slot) used() int     { return int(s.state & countMask) }
func (s *slot) full() bool    { return s.state&counted != 0 && s.used() == format.LeafEntries }
func (s *slot) mapped() int   { return int(s.state >> mappedShift & countMask) }

// state has the counts of a leaf's entries, used (not Unmapped) in the lowest 10
// bits and mapped in the next 10, and flags. The weight of an entry is what it
// adds to the counts.
type state uint32

const (
	mappedShift = 10
	countMask   = 1<<10 - 1

	referenced state = 1 << (20 + iota) // since the clock's hand passed
	dirty                               // differs from what is at `at`
	frozen                              // shares its frame with a Frozen, and was dirty then
	counted                             // the counts are known
)

const mappedWeight state = 1 | 1<<mappedShift

func weight(e format.Entry) state {
	switch e.Location() {
	case 0:
		return 0
	case format.MaxLocation:
		return 1
	}
	return mappedWeight
}

// slot returns the slot of a leaf, which may be absent, or nil.
func (t *table) slot(k format.LeafIndex) *slot {
	if c := t.chunk(k); c != nil {
		return &c.slots[k%512]
	}
	return nil
}

func (t *table) chunk(k format.LeafIndex) *chunk {
	g := int(k >> 18)
	if g >= len(t.groups) || t.groups[g] == nil {
		return nil
	}
	return t.groups[g].chunks[k>>9%512]
}

// insert returns a leaf's slot, marked as present, and by how much the table grew.
func (t *table) insert(k format.LeafIndex) (s *slot, grownBytes int64) {
	g := int(k >> 18)
	if more := g + 1 - len(t.groups); more > 0 {
		t.groups = append(t.groups, make([]*group, more)...)
		grownBytes += int64(more) * 8
	}
	if t.groups[g] == nil {
		t.groups[g] = new(group)
		grownBytes += groupBytes
	}
	c := &t.groups[g].chunks[k>>9%512]
	if *c == nil {
		*c = new(chunk)
		grownBytes += chunkBytes
	}
	(*c).present.set(int(k % 512))
	return &(*c).slots[k%512], grownBytes
}

// remove makes a leaf absent, and returns by how much the table shrank.
func (t *table) remove(k format.LeafIndex) (shrunkBytes int64) {
	c := t.chunk(k)
	c.slots[k%512] = slot{}
	c.present.clear(int(k % 512))
	c.dirty.clear(int(k % 512))
	if c.present != (bitmap{}) {
		return 0
	}
	t.groups[k>>18].chunks[k>>9%512] = nil
	return chunkBytes
}

// markDirty notes that a slot is dirty, for takeDirty.
func (t *table) markDirty(k format.LeafIndex) {
	g := t.groups[k>>18]
	g.dirty.set(int(k >> 9 % 512))
	g.chunks[k>>9%512].dirty.set(int(k % 512))
}

// takeDirty calls f with each dirty slot in order, and forgets which they are.
func (t *table) takeDirty(f func(format.LeafIndex, *slot)) {
	for gi, g := range t.groups {
		if g == nil {
			continue
		}
		for ci := g.dirty.next(0); ci < 512; ci = g.dirty.next(ci + 1) {
			c := g.chunks[ci]
			if c == nil {
				continue
			}
			for si := c.dirty.next(0); si < 512; si = c.dirty.next(si + 1) {
				f(format.LeafIndex(gi<<18|ci<<9|si), &c.slots[si])
			}
			c.dirty = bitmap{}
		}
		g.dirty = bitmap{}
	}
}

// next returns the first present leaf from k on, or noLeaf.
func (t *table) next(k format.LeafIndex) format.LeafIndex {
	for gi := int(k >> 18); gi < len(t.groups); gi++ {
		g := t.groups[gi]
		if g == nil {
			continue
		}
		first := max(k, format.LeafIndex(gi)<<18)
		for ci := int(first >> 9 % 512); ci < 512; ci++ {
			c := g.chunks[ci]
			if c == nil {
				continue
			}
			start := format.LeafIndex(gi<<18 | ci<<9)
			if si := c.present.next(int(max(first, start) - start)); si < 512 {
				return start + format.LeafIndex(si)
			}
		}
	}
	return noLeaf
}

// bytes of a table without leaves.
func (t *table) bytes() int64 {
	n := int64(len(t.groups)) * 8
	for _, g := range t.groups {
		if g != nil {
			n += groupBytes
		}
	}
	return n
}

// bitmap is a set of numbers below 512.
type bitmap [8]uint64

func (b *bitmap) set(i int)   { b[i>>6] |= 1 << (i & 63) }
func (b *bitmap) clear(i int) { b[i>>6] &^= 1 << (i & 63) }

// next returns the first member from i on, or 512.
func (b *bitmap) next(i int) int {
	if i >= 512 {
		return 512
	}
	word := b[i>>6] >> (i & 63) << (i & 63)
	for w := i >> 6; ; word = b[w] {
		if word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
		if w++; w == len(b) {
			return 512
		}
	}
}
