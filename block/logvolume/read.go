package logvolume

import (
	"sync/atomic"

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
	source
}

// source is where a shard can be read; disk is nil if it is missing or stale.
type source struct {
	disk *disk
	off  int64
}

func (r *run) lenBytes() int { return len(r.blocks) * format.BlockBytes }

// startBlocks fills p with blocks of a layer, as it is with all below it, and calls
// done. What it needs of the map that is not in memory a goroutine waits for.
func (l *Log) startBlocks(layer format.LayerID, start format.Block, p []byte, done func(error)) {
	entries := make([]format.Entry, len(p)/format.BlockBytes)
	l.mu.Lock()
	if _, missing := l.blocks.LookupRange(layer, start, entries); missing != nil {
		l.mu.Unlock()
		go l.loadBlocks(layer, start, p, entries, done)
		return
	}
	runs := l.runsOf(layer, start, p, entries)
	l.mu.Unlock()
	l.startRuns(runs, done)
}

// loadBlocks is startBlocks that reads of the map what is missing.
func (l *Log) loadBlocks(layer format.LayerID, start format.Block, p []byte, entries []format.Entry, done func(error)) {
	l.mu.Lock()
	for {
		_, missing := l.blocks.LookupRange(layer, start, entries)
		if missing == nil {
			break
		}
		if err := l.load(missing); err != nil {
			l.mu.Unlock()
			done(err)
			return
		}
	}
	runs := l.runsOf(layer, start, p, entries)
	l.mu.Unlock()
	l.startRuns(runs, done)
}

// runsOf fills what is in memory of p, and plans to read the rest. Log.mu is held.
func (l *Log) runsOf(layer format.LayerID, start format.Block, p []byte, entries []format.Entry) (runs []*run) {
	for i, e := range entries {
		b := p[i*format.BlockBytes : (i+1)*format.BlockBytes]
		if !l.fromMemory(layer, start+format.Block(i), e, b) {
			runs = l.plan(runs, e, b)
		}
	}
	return runs
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
	return append(runs, &run{s, shard, column, []format.Entry{e}, [][]byte{b}, l.sourceLocked(s, shard, column)})
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
	return block.Wait(func(done func(error)) { l.startRuns(runs, done) })
}

// startRuns reads runs, all at once, lets go of their segments, and calls done.
func (l *Log) startRuns(runs []*run, done func(error)) {
	direct, groups := divide(runs)
	if len(direct)+len(groups) == 0 {
		done(nil)
		return
	}
	var left atomic.Int32
	var failure atomic.Pointer[error]
	left.Store(int32(len(direct) + len(groups)))
	part := func(err error) {
		if err != nil {
			failure.CompareAndSwap(nil, &err)
		}
		if left.Add(-1) > 0 {
			return
		}
		for _, r := range runs {
			r.segment.readers.Add(-1)
		}
		if first := failure.Load(); first != nil {
			done(*first)
			return
		}
		done(nil)
	}
	for _, r := range direct {
		l.startRun(r, part)
	}
	for _, g := range groups {
		l.startGroup(g, part)
	}
}

// startRun reads a run from its disk, and what is not right there by the others.
// These are asked, too, if the disk is late; the first to answer wins.
func (l *Log) startRun(r *run, done func(error)) {
	switch {
	case l.geometry.ParityShards == 0:
		l.startFromDisk(r, nil, done)
	case r.disk.lags():
		go func() {
			if l.reconstruct(r) == nil {
				done(nil)
				return
			}
			l.startFromDisk(r, nil, done)
		}()
	default:
		l.startFromDisk(r, func(f *fetch) { l.overtake(r, f, done) }, done)
	}
}

func (l *Log) startFromDisk(r *run, late func(*fetch), done func(error)) {
	l.fetch(r.disk, r.off, r.lenBytes(), late, func(b []byte, err error) {
		if err != nil {
			go func() { done(l.reconstruct(r)) }()
			return
		}
		perhapsLater(len(b), func() {
			wrong := r.fill(b)
			l.buffers.put(b)
			if wrong == 0 {
				done(nil)
				return
			}
			go func() { done(l.repairRun(r, r.disk)) }()
		})
	})
}

// fill copies a run from content, and says how many blocks are not what they
// should be.
func (r *run) fill(content []byte) (wrong int) {
	for i, b := range r.blocks {
		copy(b, content[i*format.BlockBytes:(i+1)*format.BlockBytes])
		if !r.entries[i].Matches(checksum(b)) {
			wrong++
		}
	}
	return wrong
}

// overtake makes a run from others while its disk is late, unless it answers first.
func (l *Log) overtake(r *run, f *fetch, done func(error)) {
	r.segment.readers.Add(1)
	l.late.Go(func() {
		defer r.segment.readers.Add(-1)
		b := l.buffers.get(r.lenBytes())
		defer l.buffers.put(b)
		other := &run{r.segment, r.shard, r.column, r.entries, make([][]byte, len(r.blocks)), source{}}
		for i := range other.blocks {
			other.blocks[i] = b[i*format.BlockBytes : (i+1)*format.BlockBytes]
		}
		// If the others can not make it there is still the disk, or its time-out.
		if l.reconstruct(other) != nil || !f.giveUp() {
			return
		}
		for i := range r.blocks {
			copy(r.blocks[i], other.blocks[i])
		}
		done(nil)
	})
}

// sourceOf returns where a shard can be read, nil if it is missing or stale.
func (l *Log) sourceOf(s *segment, shard, column int) (*disk, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.sourceLocked(s, shard, column)
	return found.disk, found.off
}

func (l *Log) sourceLocked(s *segment, shard, column int) source {
	place := s.shards[shard]
	if place.Disk == format.NoDisk || place.Stale {
		return source{}
	}
	d := l.disks[place.Disk]
	if !d.usable() {
		return source{}
	}
	return source{d, l.shardOffset(place, column)}
}

// laterBytes is what is too long to be looked through while others wait.
const laterBytes = 32 << 10

// perhapsLater calls f, in a goroutine if it is about many bytes.
func perhapsLater(lenBytes int, f func()) {
	if lenBytes < laterBytes {
		f()
		return
	}
	go f()
}
