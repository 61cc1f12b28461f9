package checkpoint

import (
	"cmp"
	"fmt"
	"slices"

	"torpor/host"
	"torpor/kernel/proc"
)

// A mapping made from the pages image may grow by mremap over the file bytes
// behind its slot; those must be a hole, or it would show another slot's
// memory where zeros belong. So slots lie far apart: the image is sparse and
// its offsets cost nothing.
const (
	imageLimit  = ImageOffset(8 << 40) // ext4 ends at 16 TiB
	gapLeast    = ImageOffset(1 << 30)
	gapMost     = ImageOffset(64 << 30)
	slotsSpared = 64 // slots for which gaps are planned beyond those in use
)

// extent is a run of the image in use.
type extent struct{ start, end ImageOffset }

// slotTable hands out offsets of the pages image.
type slotTable struct {
	used []extent // sorted, disjoint
	gap  ImageOffset
}

// newSlotTable plans for the given number of slots.
func newSlotTable(slots int) *slotTable {
	gap := imageLimit / ImageOffset(2*(slots+slotsSpared))
	gap = min(max(gap, gapLeast), gapMost) &^ (proc.PageBytes - 1)
	return &slotTable{gap: gap}
}

// overlaps reports whether any of [start, end) is in use.
func (t *slotTable) overlaps(start, end ImageOffset) bool {
	return slices.ContainsFunc(t.used, func(e extent) bool { return start < e.end && e.start < end })
}

// claim marks a run as used.
func (t *slotTable) claim(start, end ImageOffset) {
	at, _ := slices.BinarySearchFunc(t.used, start, func(e extent, s ImageOffset) int { return cmp.Compare(e.start, s) })
	t.used = slices.Insert(t.used, at, extent{start, end})
}

// allocate claims a free run with a gap on both sides.
func (t *slotTable) allocate(lenBytes uint64) (ImageOffset, error) {
	size := ImageOffset(lenBytes)
	at := ImageOffset(0)
	for _, e := range t.used {
		if e.start >= at+size+t.gap {
			break
		}
		at = max(at, e.end+t.gap)
	}
	if at+size+t.gap > 2*imageLimit-1 {
		return 0, &host.Refusal{Reasons: []string{fmt.Sprintf("a mapping of %d bytes does not fit into the pages image behind %d others", lenBytes, len(t.used))}}
	}
	t.claim(at, at+size)
	return at, nil
}

// assignSlots gives every mapping that needs one its place in the image.
// Mappings that are made from the image keep theirs, so that only what changed
// is written; unless two of them show the same bytes, as after a fork: writing
// the pages of one would change the other under its feet.
func assignSlots(mappings []*mapping) (*slotTable, error) {
	t := newSlotTable(len(mappings))
	for _, m := range mappings {
		if m.spec.Kind != VMAImage || m.fresh {
			continue
		}
		start, end := m.spec.Offset, m.spec.Offset+ImageOffset(m.spec.Len())
		m.fresh = t.overlaps(start, end)
		t.claim(start, end) // also of one that moves: it is mapped until the commit
	}
	unshareFirst(mappings, t)
	for _, m := range mappings {
		if !m.fresh {
			continue
		}
		offset, err := t.allocate(m.spec.Len())
		if err != nil {
			return nil, err
		}
		*m.spec.slot() = offset
	}
	return t, nil
}

// unshareFirst also moves the first of several mappings that show the same
// bytes: its slot may not be written while another process maps it.
func unshareFirst(mappings []*mapping, t *slotTable) {
	for _, m := range mappings {
		if m.spec.Kind != VMAImage || m.fresh {
			continue
		}
		start, end := m.spec.Offset, m.spec.Offset+ImageOffset(m.spec.Len())
		for _, other := range mappings {
			if other != m && other.spec.Kind == VMAImage && other.fresh && other.vma.Inode == m.vma.Inode && other.vma.Dev == m.vma.Dev &&
				start < ImageOffset(other.vma.Offset)+ImageOffset(other.spec.Len()) && ImageOffset(other.vma.Offset) < end {
				m.fresh = true
				break
			}
		}
	}
}
