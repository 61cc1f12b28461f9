package logvolume

import (
	"fmt"

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
func (l *Log) divide(runs []*run) (direct []*run, groups []*group) {
	for _, r := range runs {
		if d, _ := l.sourceOf(r.segment, r.shard, r.column); d != nil {
			direct = append(direct, r)
			continue
		}
		if n := len(groups); n > 0 && groups[n-1].takes(r) {
			groups[n-1].add(r)
			continue
		}
		groups = append(groups, &group{r.segment, []*run{r}, r.column, len(r.blocks)})
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

// reconstructGroup makes the runs of a group.
func (l *Log) reconstructGroup(g *group) error {
	if len(g.runs) == 1 {
		return l.reconstruct(g.runs[0])
	}
	sources, err := l.readOthers(g.segment, -1, g.column, g.columns, l.geometry.DataShards)
	if err != nil {
		return fmt.Errorf("read segment %d: %w", g.segment.id, err)
	}
	defer l.putAll(sources)
	wanted := make([]bool, len(sources))
	for _, r := range g.runs {
		wanted[r.shard] = sources[r.shard] == nil
	}
	if err := l.code.reconstruct(sources, wanted); err != nil {
		return fmt.Errorf("reconstruct segment %d: %w", g.segment.id, err)
	}
	for _, r := range g.runs {
		if err := l.takeFrom(r, sources[r.shard][(r.column-g.column)*format.BlockBytes:]); err != nil {
			return err
		}
	}
	return nil
}

// takeFrom fills a run from what was reconstructed. What is wrong is made from
// every other choice of shards.
func (l *Log) takeFrom(r *run, content []byte) error {
	for i, b := range r.blocks {
		copy(b, content[i*format.BlockBytes:(i+1)*format.BlockBytes])
		if r.entries[i].Matches(checksum(b)) {
			continue
		}
		if err := l.search(r, i); err != nil {
			return err
		}
	}
	return nil
}
