package logvolume

import (
	"fmt"
	"sync/atomic"

	"torpor/block/logvolume/format"
)

// group is runs of one segment whose shards can not be read: they are made from
// the same columns of the same others. A row that is read as a whole with two
// data shards of 4+2 missing takes 4 reads by this instead of 10.
type group struct {
	segment *segment
	runs    []*run
	column  int
	columns int
}

// divide returns the runs that can be read, and the others by segment.
func divide(runs []*run) (direct []*run, groups []*group) {
	for i, r := range runs {
		switch n := len(groups); {
		case r.disk != nil && n == 0 && len(direct) == i:
			direct = runs[:i+1]
		case r.disk != nil:
			direct = append(direct[:len(direct):len(direct)], r)
		case n > 0 && groups[n-1].takes(r):
			groups[n-1].add(r)
		default:
			groups = append(groups, &group{r.segment, []*run{r}, r.column, len(r.blocks)})
		}
	}
	return direct, groups
}

// takes says whether a run is of mostly the same columns.
func (g *group) takes(r *run) bool {
	return g.segment == r.segment && r.column < g.column+g.columns && g.column < r.column+len(r.blocks)
}

func (g *group) add(r *run) {
	end := max(g.column+g.columns, r.column+len(r.blocks))
	g.column = min(g.column, r.column)
	g.columns = end - g.column
	g.runs = append(g.runs, r)
}

// startGroup makes the runs of a group, and calls done.
func (l *Log) startGroup(g *group, done func(error)) {
	k := l.geometry.DataShards
	shards := l.prompt(g.segment, g.column, func(int) bool { return true })
	slowly := func() { done(l.reconstructGroup(g)) }
	if len(shards) < k {
		go slowly()
		return
	}
	sources := make([][]byte, l.geometry.Shards())
	var left, failed atomic.Int32
	left.Store(int32(k))
	end := func() {
		right := failed.Load() == 0 && l.makeGroup(g, sources)
		l.putAll(sources)
		if !right {
			go slowly()
			return
		}
		done(nil)
	}
	for _, shard := range shards[:k] {
		d, off := l.sourceOf(g.segment, shard, g.column)
		part := func(b []byte, err error) {
			sources[shard] = b
			if err != nil {
				failed.Add(1)
			}
			if left.Add(-1) == 0 {
				perhapsLater(k*g.columns*format.BlockBytes, end)
			}
		}
		if d == nil {
			part(nil, errLate)
			continue
		}
		l.fetch(d, off, g.columns*format.BlockBytes, (*fetch).fail, part)
	}
}

// makeGroup makes the runs of a group from the columns of some shards. It is false
// if that is not what they should be.
func (l *Log) makeGroup(g *group, sources [][]byte) bool {
	if l.solve(g, sources) != nil {
		return false
	}
	for _, r := range g.runs {
		if r.fill(sources[r.shard][(r.column-g.column)*format.BlockBytes:]) > 0 {
			return false
		}
	}
	return true
}

// solve makes the shards of a group that are not among the sources.
func (l *Log) solve(g *group, sources [][]byte) error {
	wanted := make([]bool, len(sources))
	for _, r := range g.runs {
		wanted[r.shard] = sources[r.shard] == nil
	}
	return l.code.reconstruct(sources, wanted)
}

// reconstructGroup is startGroup that is waited for, and that tries all there is.
func (l *Log) reconstructGroup(g *group) error {
	if len(g.runs) == 1 {
		return l.reconstruct(g.runs[0])
	}
	sources, err := l.readOthers(g.segment, -1, g.column, g.columns, l.geometry.DataShards)
	if err != nil {
		return fmt.Errorf("read segment %d: %w", g.segment.id, err)
	}
	defer l.putAll(sources)
	if err := l.solve(g, sources); err != nil {
		return fmt.Errorf("reconstruct segment %d: %w", g.segment.id, err)
	}
	for _, r := range g.runs {
		if err := l.takeFrom(r, sources[r.shard][(r.column-g.column)*format.BlockBytes:]); err != nil {
			return err
		}
	}
	return nil
}
