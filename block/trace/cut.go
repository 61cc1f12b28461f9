package trace

import (
	"fmt"
	"math/rand/v2"

	"torpor/block"
	"torpor/block/memory"
)

// Cut makes the state that a power cut may leave at some moment after so many
// operations of the group had ended, 0 to Points, and before the next one did,
// which may have begun. It returns one new device in memory for each device,
// owned by the caller. The same recording, point and state of rnd give the same.
//
// Every state that is allowed may come; states in which much was kept, or lost,
// as a whole come more often than chance would make them.
func (r *Recording) Cut(point int, rnd *rand.Rand) ([]*memory.Device, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if point < 0 || point > len(r.ends) {
		return nil, fmt.Errorf("cut after %d of %d operations: %w", point, len(r.ends), block.ErrRange)
	}
	at := r.moment(point, rnd)
	clones := make([]*memory.Device, len(r.disks))
	for i, d := range r.disks {
		clone, err := newClone(d.info)
		if err == nil {
			err = copyData(clone, d.base)
		}
		if err == nil {
			err = r.replay(clone, i, at, rnd)
		}
		if err != nil {
			return nil, fmt.Errorf("make crash clone of disk %d: %w", i, err)
		}
		clones[i] = clone
	}
	return clones, nil
}

// moment chooses one after the end of a point and before the next end.
func (r *Recording) moment(point int, rnd *rand.Rand) moment {
	from, to := moment(0), r.clock
	if point > 0 {
		from = r.ends[point-1]
	}
	if point < len(r.ends) {
		to = r.ends[point] - 1
	}
	return from + moment(rnd.Int64N(int64(to-from)+1))
}

// replay applies to a clone what its disk was told until a moment, as far as it
// was kept.
func (r *Recording) replay(clone *memory.Device, disk int, at moment, rnd *rand.Rand) error {
	ops := r.changes(disk, at)
	durable := r.durable(ops, disk, at, int64(clone.Info().BlockBytes))
	fates := chooseFates(rnd)
	for i, o := range ops {
		content, err := r.load(o)
		if err != nil {
			return err
		}
		if err := applyKept(clone, o, content, i+1, durable, fates(rnd), rnd); err != nil {
			return err
		}
	}
	return nil
}

// applyKept writes the blocks of a change, the number'th, that were kept: those
// that it made durable, and of those that none after it did what keep says.
func applyKept(clone *memory.Device, o *op, content []byte, number int, durable map[int64]int, keep func(*rand.Rand) bool, rnd *rand.Rand) error {
	unit := int64(clone.Info().BlockBytes)
	write := func(from, to int64) error {
		return clone.WriteAt(content[from:to], o.Start+block.Offset(from), 0)
	}
	var from int64 // of the run of blocks that are kept
	for at := int64(0); at < o.LenBytes; at += unit {
		last := durable[(int64(o.Start)+at)/unit]
		if number == last || number > last && keep(rnd) {
			continue
		}
		if err := write(from, at); err != nil {
			return err
		}
		from = at + unit
	}
	return write(from, o.LenBytes)
}

// changes are those of a disk that began until a moment.
func (r *Recording) changes(disk int, at moment) []*op {
	var ops []*op
	for _, o := range r.ops {
		if o.disk == disk && !o.flush && o.begin <= at {
			ops = append(ops, o)
		}
	}
	return ops
}

// durable says for each block which change of it was the last one that became
// durable: 1 + its index in ops.
func (r *Recording) durable(ops []*op, disk int, at moment, unit int64) map[int64]int {
	var flushed moment // what ended before is durable
	for _, o := range r.ops {
		if o.disk == disk && o.flush && o.end <= at {
			flushed = max(flushed, o.begin)
		}
	}
	last := map[int64]int{}
	for i, o := range ops {
		if o.soft || o.end > at || o.end > flushed && !o.fua {
			continue
		}
		for b := int64(o.Start) / unit; b < (int64(o.Start)+o.LenBytes)/unit; b++ {
			last[b] = i + 1
		}
	}
	return last
}

// chooseFates chooses a way to choose, for each change, how to choose for each
// of its blocks whether it is kept.
func chooseFates(rnd *rand.Rand) func(*rand.Rand) func(*rand.Rand) bool {
	all := func(*rand.Rand) bool { return true }
	none := func(*rand.Rand) bool { return false }
	torn := func(rnd *rand.Rand) bool { return rnd.IntN(2) == 0 }
	ways := []func(*rand.Rand) bool{all, none, torn}
	if way := rnd.IntN(4); way < len(ways) {
		return func(*rand.Rand) func(*rand.Rand) bool { return ways[way] }
	}
	return func(rnd *rand.Rand) func(*rand.Rand) bool { return ways[rnd.IntN(len(ways))] }
}
