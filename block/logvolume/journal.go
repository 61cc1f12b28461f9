package logvolume

import (
	"torpor/block"
	"torpor/block/logvolume/format"
)

// ring is the journal of one disk: records one behind another, around.
type ring struct {
	bytes   int64
	head    int64 // where the next one goes
	records []placedRecord
}

// placedRecord is a record that is needed until its changes are in durable rows.
type placedRecord struct {
	off, lenBytes int64
	through       format.Sequence
}

// room finds a place for a record. It does not take it.
func (r *ring) room(lenBytes int64) (off int64, ok bool) {
	if lenBytes > r.bytes {
		return 0, false
	}
	off = r.head
	if off+lenBytes > r.bytes {
		off = 0
	}
	for _, p := range r.records {
		if p.off < off+lenBytes && off < p.off+p.lenBytes {
			return 0, false
		}
	}
	return off, true
}

func (r *ring) take(p placedRecord) {
	r.records = append(r.records, p)
	r.head = p.off + p.lenBytes
}

// release forgets records whose changes are all up to one that is in durable rows.
func (r *ring) release(through format.Sequence) {
	n := 0
	for n < len(r.records) && r.records[n].through <= through {
		n++
	}
	r.records = r.records[n:]
}

// record is a journal record that is being written.
type record struct {
	header format.Record
	pages  []*page
	disks  []*disk
	offs   []int64
	late   bool // a disk is still writing it
}

// recordOf makes a record of all queued changes up to goal that are not durable,
// and takes places for it. It returns nil if they are too much for the journal,
// or there is nothing to write, or no place. Log.mu is held.
func (l *Log) recordOf(goal format.Sequence) *record {
	if l.partSequence > max(l.cutSequence, l.durable) {
		// A part of the first one is in a row that may yet be lost.
		return nil
	}
	after := max(l.durable, l.cutSequence)
	r := &record{header: format.Record{Log: l.id, Epoch: l.epoch, After: after, Through: after}}
	limit := int(l.options.JournalBatchBytes / format.BlockBytes)
	for _, c := range l.queue.changes {
		switch {
		case c.sequence <= after || c.sequence > goal:
			continue
		case len(r.pages)+len(c.pages) > limit || len(r.header.Extents) >= limit:
			return nil
		}
		r.add(c)
	}
	if len(r.header.Extents) == 0 || !l.placeRecord(r) {
		return nil
	}
	for _, p := range r.pages {
		p.refs++
	}
	return r
}

func (r *record) add(c change) {
	h := &r.header
	h.Through = c.sequence
	h.Extents = append(h.Extents, c.extent())
	r.pages = append(r.pages, c.pages...)
	for _, p := range c.pages {
		h.Sums = append(h.Sums, p.sum)
	}
}

// placeRecord takes places on as many disks as may be lost, and one more; the
// next record begins with another disk.
func (l *Log) placeRecord(r *record) bool {
	usable := 0
	for _, d := range l.disks {
		if d.usable() {
			usable++
		}
	}
	copies := min(l.geometry.ParityShards+1, usable)
	lenBytes := int64(r.header.HeaderBlocks()+len(r.pages)) * format.BlockBytes
	for i := range l.disks {
		d := l.disks[(l.journalTurn+i)%len(l.disks)]
		if !d.usable() || len(r.disks) == copies {
			continue
		}
		if off, ok := d.journal.room(lenBytes); ok {
			r.disks, r.offs = append(r.disks, d), append(r.offs, off)
		}
	}
	if copies == 0 || len(r.disks) < copies {
		return false
	}
	for i, d := range r.disks {
		d.journal.take(placedRecord{r.offs[i], lenBytes, r.header.Through})
	}
	l.journalTurn = (l.journalTurn + 1) % len(l.disks)
	l.counters.JournalWritten += uint64(lenBytes / format.BlockBytes * int64(copies))
	return true
}

// writeRecord writes a record to its disks, durably: one request each, and no
// flush of what else these have. It returns false if one of them failed; that one
// is out then.
func (l *Log) writeRecord(r *record) bool {
	header := l.buffers.get(r.header.HeaderBlocks() * format.BlockBytes)
	r.header.EncodeTo(header)
	blocks := [][]byte{header}
	for _, p := range r.pages {
		blocks = append(blocks, p.data)
	}
	var writes []diskWrite
	for i, d := range r.disks {
		writes = append(writes, diskWrite{d, blocks, format.HeadBytes + r.offs[i]})
	}
	var done int
	done, r.late = l.writeAll(writes, block.FUA)
	if !r.late {
		l.buffers.put(header)
	}
	return done == len(writes)
}
