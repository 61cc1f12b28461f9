package logvolume

import (
	"fmt"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// run is neighbouring columns of one shard that are to be read.
type run struct {
	segment *segment
	shard   int
	column  int
	entries []format.Entry
	blocks  [][]byte // where each goes
}

// readBlocks fills p with blocks of a layer, as it is with all below it.
func (l *Log) readBlocks(layer format.LayerID, start format.Block, p []byte) error {
	n := len(p) / format.BlockBytes
	entries := make([]format.Entry, n)
	l.mu.Lock()
	for {
		_, missing := l.blocks.LookupRange(layer, start, entries)
		if missing == nil {
			break
		}
		if err := l.load(missing); err != nil {
			l.mu.Unlock()
			return err
		}
	}
	var runs []*run
	for i, e := range entries {
		b := p[i*format.BlockBytes : (i+1)*format.BlockBytes]
		if !l.fromMemory(layer, start+format.Block(i), e, b) {
			runs = l.plan(runs, e, b)
		}
	}
	l.mu.Unlock()
	err := l.readRuns(runs)
	for _, r := range runs {
		r.segment.readers.Add(-1)
	}
	return err
}

// fromMemory fills b if the block is queued, in flight, or nowhere.
func (l *Log) fromMemory(layer format.LayerID, at format.Block, e format.Entry, b []byte) bool {
	p, queued := l.queue.lookup(layer, at)
	if !queued && e.Mapped() {
		id, shard, column := l.geometry.Place(e.Location())
		if p = l.segments[id].inFlight(shard, column); p == nil {
			return false
		}
	}
	if p == nil || p == zeroPage {
		clear(b)
	} else {
		copy(b, p.data)
	}
	return true
}

// plan adds a block to the runs, whose segments are pinned.
func (l *Log) plan(runs []*run, e format.Entry, b []byte) []*run {
	id, shard, column := l.geometry.Place(e.Location())
	if n := len(runs); n > 0 {
		if r := runs[n-1]; r.segment.id == id && r.shard == shard && r.column+len(r.blocks) == column {
			r.entries, r.blocks = append(r.entries, e), append(r.blocks, b)
			return runs
		}
	}
	s := l.pin(e.Location())
	return append(runs, &run{s, shard, column, []format.Entry{e}, [][]byte{b}})
}

// readEntries reads blocks of the log, whose segments the caller has pinned, and
// that are on the disks or in flight.
func (l *Log) readEntries(entries []format.Entry, blocks [][]byte) error {
	var runs []*run
	l.mu.Lock()
	for i, e := range entries {
		id, shard, column := l.geometry.Place(e.Location())
		if p := l.segments[id].inFlight(shard, column); p != nil {
			copy(blocks[i], p.data)
			continue
		}
		runs = l.plan(runs, e, blocks[i])
	}
	l.mu.Unlock()
	err := l.readRuns(runs)
	for _, r := range runs {
		r.segment.readers.Add(-1)
	}
	return err
}

// readRuns reads runs, several at once.
func (l *Log) readRuns(runs []*run) error {
	if len(runs) == 1 {
		return l.readRun(runs[0])
	}
	direct, groups := l.divide(runs)
	results := make(chan error, len(runs))
	for _, r := range direct {
		go func() { results <- l.readRun(r) }()
	}
	for _, g := range groups {
		go func() { results <- l.reconstructGroup(g) }()
	}
	var first error
	for range len(direct) + len(groups) {
		if err := <-results; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// readRun reads a run from its disk, and what is not right there by the others.
// These are asked, too, if the disk is late; the first to answer wins.
func (l *Log) readRun(r *run) error {
	d, off := l.sourceOf(r.segment, r.shard, r.column)
	if d == nil || d.lags() && l.geometry.ParityShards > 0 && l.reconstruct(r) == nil {
		if d == nil {
			return l.reconstruct(r)
		}
		return nil
	}
	f := l.fetch(d, off, len(r.blocks)*format.BlockBytes)
	if f.await(d.patience()) || l.geometry.ParityShards == 0 {
		return l.takeRun(r, d, f)
	}
	return l.overtake(r, d, f)
}

// takeRun fills a run with what its disk returned.
func (l *Log) takeRun(r *run, d *disk, f *fetch) error {
	b, err := f.take()
	if err != nil {
		return l.reconstruct(r)
	}
	defer l.buffers.put(b)
	for i := range r.blocks {
		copy(r.blocks[i], b[i*format.BlockBytes:])
	}
	return l.repairRun(r, d)
}

// overtake makes a run from others while its disk is late. Whoever is first ends it.
func (l *Log) overtake(r *run, d *disk, f *fetch) error {
	b := l.buffers.get(len(r.blocks) * format.BlockBytes)
	other := &run{r.segment, r.shard, r.column, r.entries, make([][]byte, len(r.blocks))}
	for i := range other.blocks {
		other.blocks[i] = b[i*format.BlockBytes : (i+1)*format.BlockBytes]
	}
	made := make(chan error, 1)
	r.segment.readers.Add(1)
	l.fetches.Go(func() {
		defer r.segment.readers.Add(-1)
		made <- l.reconstruct(other)
	})
	select {
	case <-f.done:
		// What the others make is left to the garbage collector.
		return l.takeRun(r, d, f)
	case err := <-made:
		defer l.buffers.put(b)
		if err != nil {
			return l.takeRun(r, d, f)
		}
		f.abandon()
		for i := range r.blocks {
			copy(r.blocks[i], other.blocks[i])
		}
		return nil
	}
}

// sourceOf returns where a shard can be read, nil if it is missing or stale.
func (l *Log) sourceOf(s *segment, shard, column int) (*disk, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	place := s.shards[shard]
	if place.Disk == format.NoDisk || place.Stale {
		return nil, 0
	}
	d := l.disks[place.Disk]
	if !d.usable() {
		return nil, 0
	}
	return d, l.shardOffset(place, column)
}

// repairRun compares what was read with its checksums, and reconstructs the
// blocks that are wrong.
func (l *Log) repairRun(r *run, d *disk) error {
	for i := 0; i < len(r.blocks); i++ {
		if r.entries[i].Matches(checksum(r.blocks[i])) {
			continue
		}
		first := i
		for i < len(r.blocks) && !r.entries[i].Matches(checksum(r.blocks[i])) {
			i++
		}
		d.corrupt.Add(int64(i - first))
		l.event(d.name, "disk %s returned wrong data: %d blocks of segment %d", d.name, i-first, r.segment.id)
		wrong := &run{r.segment, r.shard, r.column + first, r.entries[first:i], r.blocks[first:i]}
		if err := l.reconstruct(wrong); err != nil {
			return err
		}
	}
	return nil
}

// reconstruct makes a run from other shards of its columns.
func (l *Log) reconstruct(r *run) error {
	n := len(r.blocks)
	sources, err := l.readOthers(r.segment, r.shard, r.column, n, l.geometry.DataShards)
	if err != nil {
		return fmt.Errorf("read segment %d shard %d: %w", r.segment.id, r.shard, err)
	}
	defer l.putAll(sources)
	wanted := make([]bool, len(sources))
	wanted[r.shard] = true
	if err := l.code.reconstruct(sources, wanted); err != nil {
		return fmt.Errorf("reconstruct segment %d shard %d: %w", r.segment.id, r.shard, err)
	}
	return l.takeFrom(r, sources[r.shard])
}

// readOthers reads columns of as many shards as wanted, but not of one; -1: of all. The
// result has an element for each shard, empty ones for those that were not read.
func (l *Log) readOthers(s *segment, except, column, columns, wanted int) ([][]byte, error) {
	sources := make([][]byte, l.geometry.Shards())
	for patient := false; wanted > 0; {
		read := l.prompt(s, column, func(shard int) bool { return shard != except && sources[shard] == nil })
		switch {
		case len(read) >= wanted:
			wanted -= l.readShards(s, read[:wanted], column, columns, sources, patient)
		case patient:
			l.putAll(sources)
			return nil, fmt.Errorf("too few disks have it: %w", block.ErrCorrupt)
		default:
			// Those that were late have another chance, also those that failed.
			patient = true
			for shard := range sources {
				if len(sources[shard]) == 0 {
					sources[shard] = nil
				}
			}
		}
	}
	for shard := range sources {
		if sources[shard] != nil && len(sources[shard]) == 0 {
			sources[shard] = nil
		}
	}
	return sources, nil
}

// prompt returns the shards that can be read, of those that are wanted, on disks
// that are late last.
func (l *Log) prompt(s *segment, column int, wanted func(shard int) bool) []int {
	var shards, late []int
	for shard := range s.shards {
		d, _ := l.sourceOf(s, shard, column)
		switch {
		case d == nil || !wanted(shard):
		case d.lags():
			late = append(late, shard)
		default:
			shards = append(shards, shard)
		}
	}
	return append(shards, late...)
}

// readShards reads columns of some shards at once. Those that fail become empty
// and not nil, also those that are late if it is not patient. It returns how many
// did not.
func (l *Log) readShards(s *segment, shards []int, column, columns int, into [][]byte, patient bool) (done int) {
	results := make(chan bool, len(shards))
	for _, shard := range shards {
		go func() {
			into[shard] = []byte{}
			d, off := l.sourceOf(s, shard, column)
			if d == nil {
				results <- false
				return
			}
			b, err := l.readSome(d, off, columns, patient)
			if err == nil {
				into[shard] = b
			}
			results <- err == nil
		}()
	}
	for range shards {
		if <-results {
			done++
		}
	}
	return done
}

func (l *Log) putAll(buffers [][]byte) {
	for _, b := range buffers {
		l.buffers.put(b)
	}
}

// search makes one block from every choice of shards until one has the right
// checksum: one of the sources was wrong.
func (l *Log) search(r *run, i int) error {
	all := make([][]byte, l.geometry.Shards())
	var have []int
	for shard := range all {
		if d, _ := l.sourceOf(r.segment, shard, r.column+i); d != nil && shard != r.shard {
			have = append(have, shard)
		}
	}
	l.readShards(r.segment, have, r.column+i, 1, all, true)
	defer l.putAll(all)
	wanted := make([]bool, len(all))
	wanted[r.shard] = true
	for chosen := range choices(have, l.geometry.DataShards) {
		sources := make([][]byte, len(all))
		for _, shard := range chosen {
			sources[shard] = all[shard]
		}
		if l.code.reconstruct(sources, wanted) == nil && r.entries[i].Matches(checksum(sources[r.shard])) {
			copy(r.blocks[i], sources[r.shard])
			return nil
		}
	}
	return fmt.Errorf("segment %d shard %d column %d: %w", r.segment.id, r.shard, r.column+i, block.ErrCorrupt)
}

// choices yields every way to take n of items. The slice is used again.
func choices(items []int, n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		chosen := make([]int, 0, n)
		var take func(from int) bool
		take = func(from int) bool {
			if len(chosen) == n {
				return yield(chosen)
			}
			for i := from; i <= len(items)-(n-len(chosen)); i++ {
				chosen = append(chosen, items[i])
				if !take(i + 1) {
					return false
				}
				chosen = chosen[:len(chosen)-1]
			}
			return true
		}
		take(0)
	}
}
