package logvolume

import (
	"context"
	"fmt"

	"torpor/block/logvolume/format"
)

// CheckReport says what a check found.
type CheckReport struct {
	Blocks   int64    // useful ones
	Leaves   int64    // of the map
	Problems []string // broken invariants; at most maxProblems
	Scrub    ScrubReport
}

// OK says whether everything is as it should be, on all disks that are there.
func (r CheckReport) OK() bool {
	return len(r.Problems) == 0 && r.Scrub.WrongBlocks == 0 && len(r.Scrub.Lost) == 0
}

const maxProblems = 100

// Check proves that the log is in order: that each useful block lies in a row of
// a segment in use, once; that counters are what a recount gives; that segments
// share no slots; that superblocks agree; and then, unless data is false, that all
// that was written is as it was, by a scrub without repair. Changes wait for the
// first part.
func (l *Log) Check(ctx context.Context, data bool, progress Progress) (CheckReport, error) {
	c := &check{log: l, seen: map[format.SegmentID]*recount{}}
	if err := c.structure(ctx); err != nil {
		return c.report, fmt.Errorf("check: %w", err)
	}
	c.supers()
	if !data {
		return c.report, nil
	}
	var err error
	c.report.Scrub, err = l.Scrub(ctx, false, progress)
	return c.report, err
}

// check is one under way.
type check struct {
	log    *Log
	report CheckReport
	seen   map[format.SegmentID]*recount
}

// recount is what a walk through the map finds in a segment.
type recount struct {
	live, meta int
	used       []uint64 // a bit for each location
}

func (c *check) problem(text string, args ...any) {
	if len(c.report.Problems) < maxProblems {
		c.report.Problems = append(c.report.Problems, fmt.Sprintf(text, args...))
	}
}

// structure checks what is in memory and what the map says, while nothing changes.
func (c *check) structure(ctx context.Context) error {
	l := c.log
	l.layersMu.Lock()
	defer l.layersMu.Unlock()
	l.mu.Lock()
	l.gate++
	// The cleaner may be needed for this, so it is stopped after it only.
	err := l.emptyQueue()
	l.mu.Unlock()
	defer l.openGate()
	if err != nil {
		return err
	}
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	l.checkpointMu.Lock()
	defer l.checkpointMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, y := range l.layers {
		if err := c.layer(ctx, y); err != nil {
			return err
		}
	}
	for _, e := range append(append([]format.Entry(nil), l.manifestBlocks...), l.released...) {
		c.count(e, true, "manifest or former leaf")
	}
	c.counters()
	c.slots()
	return nil
}

func (l *Log) openGate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate--
	l.progress.Broadcast()
}

// layer walks through all entries of a layer.
func (c *check) layer(ctx context.Context, y *layer) error {
	l := c.log
	for from := format.Block(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, missing := l.blocks.Walk(y.id, from, func(at format.Block, e format.Entry) bool {
			if e.Mapped() {
				c.report.Blocks++
				c.count(e, false, fmt.Sprintf("block %d of layer %d", at, y.id))
			}
			if at >= y.sizeBlocks {
				c.problem("layer %d has block %d of %d", y.id, at, y.sizeBlocks)
			}
			return true
		})
		if missing == nil {
			break
		}
		from = next
		if err := l.load(missing); err != nil {
			return err
		}
	}
	leaves := (y.sizeBlocks + format.LeafEntries - 1) / format.LeafEntries
	for leaf := range format.LeafIndex(leaves) {
		if at := l.blocks.LeafAt(y.id, leaf); at.Mapped() {
			c.report.Leaves++
			c.count(at, true, fmt.Sprintf("leaf %d of layer %d", leaf, y.id))
		}
	}
	return nil
}

// count notes that something is at a place, which nothing else may be.
func (c *check) count(e format.Entry, meta bool, what string) {
	l := c.log
	id, shard, column := l.geometry.Place(e.Location())
	s := l.segmentOf(e.Location())
	if s == nil || column >= s.columns || shard >= l.geometry.DataShards {
		c.problem("%s is at segment %d shard %d column %d, where no row is", what, id, shard, column)
		return
	}
	r := c.seen[id]
	if r == nil {
		r = &recount{used: make([]uint64, (l.geometry.SegmentBlocks()+63)/64)}
		c.seen[id] = r
	}
	bit := shard*l.geometry.Columns() + column
	if r.used[bit/64]&(1<<(bit%64)) != 0 {
		c.problem("%s is at segment %d shard %d column %d, where something else is, too", what, id, shard, column)
	}
	r.used[bit/64] |= 1 << (bit % 64)
	if meta {
		r.meta++
	} else {
		r.live++
	}
}

// counters compares the counters of segments with the recount.
func (c *check) counters() {
	l := c.log
	total, meta := 0, 0
	for _, s := range l.segments {
		if s == nil {
			continue
		}
		r := c.seen[s.id]
		if r == nil {
			r = &recount{}
		}
		total, meta = total+r.live, meta+r.meta
		if r.live != s.live || r.meta != s.meta {
			c.problem("segment %d counts %d useful blocks and %d of the map, it has %d and %d", s.id, s.live, s.meta, r.live, r.meta)
		}
	}
	if total != l.live || meta != l.meta {
		c.problem("the log counts %d useful blocks and %d of the map, it has %d and %d", l.live, l.meta, total, meta)
	}
}

// slots checks who uses the slots of the disks.
func (c *check) slots() {
	l := c.log
	used := map[*disk]int{}
	for _, s := range l.segments {
		if s == nil {
			continue
		}
		for i, shard := range s.shards {
			if shard.Disk == format.NoDisk {
				continue
			}
			d := l.disks[shard.Disk]
			if int(shard.Slot) >= len(d.slots) || d.slots[shard.Slot] != s {
				c.problem("segment %d shard %d has not slot %d of disk %s", s.id, i, shard.Slot, d.name)
				continue
			}
			used[d]++
		}
	}
	for _, d := range l.disks {
		if len(d.slots)-used[d] != d.free {
			c.problem("disk %s counts %d free slots, it has %d", d.name, d.free, len(d.slots)-used[d])
		}
	}
}

// supers reads the superblocks of all disks that are in use, while none is written.
func (c *check) supers() {
	l := c.log
	l.superMu.Lock()
	defer l.superMu.Unlock()
	l.mu.Lock()
	disks, generation := l.disks, l.generation
	l.mu.Unlock()
	for _, d := range l.usable(disks) {
		s, err := readSuperWithin(l.options.DiskTimeout, d.device)
		switch {
		case s == nil:
			c.problem("disk %s has no superblock: %v", d.name, err)
		case s.Log != l.id || s.Disk != d.id || s.Generation != generation:
			c.problem("disk %s has a superblock of log %s, disk %s, generation %d; it should be %s, %s, %d", d.name, s.Log, s.Disk, s.Generation, l.id, d.id, generation)
		}
	}
}
