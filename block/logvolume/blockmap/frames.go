package blockmap

import (
	"math/bits"

	"torpor/block/logvolume/format"
)

// Leaf is the content of a leaf.
type Leaf = [format.LeafEntries]format.Entry

// leafBytes is what a leaf takes in memory.
const leafBytes = format.BlockBytes

// frame numbers the places for leaves in memory. 0 is none.
type frame uint32

const slabFrames = 64

// frames keeps the memory of leaves, in slabs of 64. Numbers instead of pointers
// make slots small and leave the garbage collector nothing to scan; slabs have
// none of its overhead for each leaf (80 bytes of span for two objects of 4096).
// A slab without leaves is given back.
type frames struct {
	data   []*[slabFrames]Leaf
	slabs  []*slab
	open   []uint32 // slabs that may have free frames
	vacant []uint32 // slabs without data
	used   int      // frames
	filled int      // slabs with data
	empty  int      // slabs with data and without used frames
}

type slab struct {
	owners [slabFrames]owner
	free   uint64 // a bit each
	listed bool   // in frames.open
}

const allFree = ^uint64(0)

// owner is the leaf that a frame belongs to; layer 0 if it is a Frozen's only.
type owner struct {
	layer format.LayerID
	index format.LeafIndex
}

func (f *frames) leaf(n frame) *Leaf {
	return &f.data[n/slabFrames][n%slabFrames]
}

func (f *frames) owner(n frame) *owner {
	return &f.slabs[n/slabFrames].owners[n%slabFrames]
}

// alloc returns a frame with any content.
func (f *frames) alloc(o owner) frame {
	i := f.openSlab()
	s := f.slabs[i]
	if s.free == allFree {
		f.empty--
	}
	bit := bits.TrailingZeros64(s.free)
	s.free &^= 1 << bit
	s.owners[bit] = o
	f.used++
	return frame(i*slabFrames) + frame(bit)
}

// openSlab returns a slab with a free frame.
func (f *frames) openSlab() uint32 {
	for len(f.open) > 0 {
		i := f.open[len(f.open)-1]
		if f.data[i] != nil && f.slabs[i].free != 0 {
			return i
		}
		f.slabs[i].listed = false
		f.open = f.open[:len(f.open)-1]
	}
	if len(f.vacant) == 0 {
		f.vacant = append(f.vacant, uint32(len(f.data)))
		f.data = append(f.data, nil)
		f.slabs = append(f.slabs, &slab{free: allFree})
	}
	i := f.vacant[len(f.vacant)-1]
	f.vacant = f.vacant[:len(f.vacant)-1]
	f.data[i] = new([slabFrames]Leaf)
	f.filled++
	f.empty++
	f.list(i)
	if i == 0 && f.slabs[0].free == allFree {
		f.slabs[0].free &^= 1 // frame 0 is none
		f.empty--
	}
	return i
}

func (f *frames) list(i uint32) {
	if !f.slabs[i].listed {
		f.slabs[i].listed = true
		f.open = append(f.open, i)
	}
}

// release frees a frame. One empty slab is kept, so that a leaf that comes and
// goes does not make garbage.
func (f *frames) release(n frame) {
	i := uint32(n / slabFrames)
	s := f.slabs[i]
	s.free |= 1 << (n % slabFrames)
	s.owners[n%slabFrames] = owner{}
	f.used--
	f.list(i)
	if s.free != allFree {
		return
	}
	if f.empty++; f.empty > 1 {
		f.empty--
		f.filled--
		f.data[i] = nil
		f.vacant = append(f.vacant, i)
	}
}

// bytes is what all slabs take.
func (f *frames) bytes() int64 {
	const slabBytes = slabFrames*(leafBytes+8) + 16
	return int64(f.filled) * slabBytes
}
