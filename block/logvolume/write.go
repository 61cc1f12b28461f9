package logvolume

import (
	"errors"
	"fmt"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// write writes a row that was cut to its disks and counts it as finished. It is
// not durable by that.
func (l *Log) write(r *row) {
	shards, buffer := l.shardsOf(r)
	err := l.code.encodeColumns(shards)
	done := 0
	if err == nil {
		done = l.writeShards(r, shards)
	}
	if !r.late {
		l.buffers.put(buffer)
	}
	l.finish(r, done, err)
}

// shardsOf lays a row out: for each shard its blocks, one a column. The buffer
// holds header and parity, and goes back to Log.buffers after use.
func (l *Log) shardsOf(r *row) (shards [][][]byte, buffer []byte) {
	k, m, columns := l.geometry.DataShards, l.geometry.ParityShards, int(r.header.Columns)
	buffer = l.buffers.get((r.headerBlocks + m*columns) * format.BlockBytes)
	header := buffer[:r.headerBlocks*format.BlockBytes]
	parity := buffer[len(header):]
	r.header.EncodeTo(header)
	blocks := make([][]byte, (k+m)*columns)
	for slot := range k * columns {
		if p := r.pageAt(slot/columns, slot%columns); p != nil {
			blocks[slot] = p.data
		} else {
			blocks[slot] = header[slot*format.BlockBytes : (slot+1)*format.BlockBytes]
		}
	}
	for i := range m * columns {
		blocks[k*columns+i] = parity[i*format.BlockBytes : (i+1)*format.BlockBytes]
	}
	shards = make([][][]byte, k+m)
	for i := range shards {
		shards[i] = blocks[i*columns : (i+1)*columns]
	}
	return shards, buffer
}

// encodeColumns fills the parity blocks of each column.
func (c *code) encodeColumns(shards [][][]byte) error {
	if c.encoder == nil {
		return nil
	}
	column := make([][]byte, len(shards))
	for i := range shards[0] {
		for shard := range shards {
			column[shard] = shards[shard][i]
		}
		if err := c.encode(column); err != nil {
			return fmt.Errorf("encode column: %w", err)
		}
	}
	return nil
}

// writeShards returns how many shards reached their disks. Disks that fail are put out.
func (l *Log) writeShards(r *row, shards [][][]byte) (done int) {
	places, disks := l.placesOf(r.segment)
	var writes []diskWrite
	for i, d := range disks {
		if d != nil {
			writes = append(writes, diskWrite{d, shards[i], l.shardOffset(places[i], int(r.header.Column))})
		}
	}
	done, r.late = l.writeAll(writes, 0)
	return done
}

// writeTo writes to a disk, which is out if it fails.
func (l *Log) writeTo(d *disk, blocks [][]byte, off int64) (done, late bool) {
	n, late := l.writeAll([]diskWrite{{d, blocks, off}}, 0)
	return n == 1, late
}

// diskWrite is what is to be written to a disk.
type diskWrite struct {
	disk   *disk
	blocks [][]byte
	off    int64
}

// writeAll writes to several disks at once, and returns how many took it; the
// others are out. late: what was to be written still is.
func (l *Log) writeAll(writes []diskWrite, flags block.Flags) (done int, late bool) {
	type result struct {
		disk *disk
		err  error
	}
	results := make(chan result, len(writes))
	for _, w := range writes {
		l.startWrite(w.disk, w.blocks, w.off, flags, func(err error) { results <- result{w.disk, err} })
	}
	for range writes {
		r := <-results
		if r.err == nil {
			done++
			continue
		}
		l.putOut(r.disk, r.err)
		late = late || errors.Is(r.err, errLate)
	}
	return done, late
}

// placesOf returns where the shards of a segment are, and on which disks they can
// be written now: nil for the others.
func (l *Log) placesOf(s *segment) ([]format.ShardRecord, []*disk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	disks := make([]*disk, len(s.shards))
	for i, shard := range s.shards {
		if shard.Disk == format.NoDisk {
			continue
		}
		if d := l.disks[shard.Disk]; d.usable() {
			disks[i] = d
		} else {
			s.shards[i].Stale = true
		}
	}
	return append([]format.ShardRecord(nil), s.shards...), disks
}

// finish takes a row off the list of those that only memory has.
func (l *Log) finish(r *row, done int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.finished, r.shardsDone = true, done
	l.inFlight--
	if done < l.geometry.DataShards {
		l.failLocked(errors.Join(fmt.Errorf("write row %d: %d of %d shards written", r.header.Number, done, l.geometry.Shards()), err))
	} else {
		l.releasePages(r)
	}
	for len(l.unfinished) > 0 && l.unfinished[0].finished {
		l.finishedRow = l.unfinished[0].header.Number
		l.finishedSequence = max(l.finishedSequence, l.unfinished[0].header.Sequence)
		l.unsyncedBlocks += int(l.unfinished[0].header.Columns) * l.geometry.DataShards
		l.unfinished = l.unfinished[1:]
	}
	if int64(l.unsyncedBlocks)*format.BlockBytes > l.options.UnsyncedBytes {
		signal(l.syncKick)
	}
	if l.checkpointDue() {
		signal(l.kick)
	}
	l.progress.Broadcast()
}

// releasePages lets go of a row's pages: from now on reads go to the disks.
func (l *Log) releasePages(r *row) {
	for i, other := range r.segment.rows {
		if other == r {
			r.segment.rows = append(r.segment.rows[:i:i], r.segment.rows[i+1:]...)
			break
		}
	}
	l.dirtyPages -= len(r.pages)
	if !r.late {
		l.unref(r.pages)
	}
	r.pages = nil
}

// unref gives pages back to the pool that nobody needs any more.
func (l *Log) unref(pages []*page) {
	free := pages[:0]
	for _, p := range pages {
		if p.refs--; p.refs == 0 {
			free = append(free, p)
		}
	}
	l.pages.put(free)
}
