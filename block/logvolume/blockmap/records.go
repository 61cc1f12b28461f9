package blockmap

import (
	"cmp"
	"slices"

	"torpor/block/logvolume/format"
)

// Records collects where all leaves of a layer are, as of a freeze.
//
// A leaf that was dirty is where Written says. Of the others, those whose place
// changed since are in frozenLayer.before, with what it was; and of the rest the
// table is right, however late it is read: leaves made since have no place yet.
type Records struct {
	f      *Frozen
	layer  *frozenLayer
	next   format.LeafIndex
	table  []format.LeafRecord
	before []format.LeafRecord // At 0: there was none
}

// Records starts to collect the leaves of a layer that was there at the freeze.
// All of its leaves must have been written.
func (f *Frozen) Records(id format.LayerID) *Records {
	f.mustBeOpen()
	if f.unwritten > 0 {
		panic("blockmap: records before all leaves are written")
	}
	return &Records{f: f, layer: f.layer(id)}
}

// Step looks at up to so many leaves, and returns whether it has seen all. Other
// calls may change the map between steps.
func (r *Records) Step(leaves int) bool {
	r.f.mustBeOpen()
	t := &r.layer.layer.table
	for ; leaves > 0; leaves-- {
		k := t.next(r.next)
		if k == noLeaf {
			for k, at := range r.layer.before {
				r.before = append(r.before, format.LeafRecord{Index: k, At: at})
			}
			return true
		}
		if at := t.slot(k).at; at != 0 {
			r.table = append(r.table, format.LeafRecord{Index: k, At: at})
		}
		r.next = k + 1
	}
	return false
}

// Leaves returns the records in order, after the last step. It needs no lock.
func (r *Records) Leaves() []format.LeafRecord {
	byIndex := func(a, b format.LeafRecord) int { return cmp.Compare(a.Index, b.Index) }
	slices.SortFunc(r.before, byIndex)
	written := make([]format.LeafRecord, len(r.layer.items))
	for i, item := range r.layer.items {
		written[i] = format.LeafRecord{Index: item.index, At: item.at}
	}
	all := override(written, override(r.before, r.table))
	return slices.DeleteFunc(all, func(l format.LeafRecord) bool { return l.At == 0 })
}

// override merges two sorted lists; of records in both it takes the first's.
func override(first, second []format.LeafRecord) []format.LeafRecord {
	all := make([]format.LeafRecord, 0, len(first)+len(second))
	for len(first) > 0 && len(second) > 0 {
		switch cmp.Compare(first[0].Index, second[0].Index) {
		case 0:
			second = second[1:]
		case -1:
			all = append(all, first[0])
			first = first[1:]
		case 1:
			all = append(all, second[0])
			second = second[1:]
		}
	}
	return append(append(all, first...), second...)
}
