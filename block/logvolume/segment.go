package logvolume

import (
	"fmt"
	"sync/atomic"

	"torpor/block"
	"torpor/block/logvolume/clean"
	"torpor/block/logvolume/format"
)

// segment is one in use. All but readers is guarded by Log.mu.
//
//	reserved --first row--> open --full--> sealed --useless, durable, unread--> (free)
type segment struct {
	id      format.SegmentID
	stream  format.Stream
	state   segmentState
	shards  []format.ShardRecord
	columns int              // filled by rows that were cut
	live    int              // blocks of data that the map points to
	use     clean.Segment    // what the cleaner's policy knows; its Live is not kept up to date
	meta    int              // leaves, manifest and index blocks of the newest checkpoint, and of one under way
	sealed  format.RowNumber // the last row in it, once it is sealed
	rows    []*row           // cut and not yet written, in order of columns
	// cleaned is set when all that was useful was moved out, by rows up to
	// cleanedRow; stuck when that was not possible.
	cleaned, stuck bool
	cleanedRow     format.RowNumber
	full           bool // takes no more rows, for it is to be rebuilt
	named          bool // a row in it, or the checkpoint, says which segment comes next

	readers atomic.Int32 // reads and cleaning under way
}

type segmentState uint8

const (
	reserved segmentState = iota
	open
	sealed
)

// wrote counts blocks that were appended, and when users wrote them.
func (s *segment) wrote(blocks int, at clean.Time) {
	if blocks > 0 {
		s.use.Append(int32(blocks), at)
	}
}

// inFlight returns the page at a place of a row that is not on the disks yet.
func (s *segment) inFlight(shard, column int) *page {
	for _, r := range s.rows {
		if first := int(r.header.Column); column >= first && column < first+int(r.header.Columns) {
			return r.pageAt(shard, column-first)
		}
	}
	return nil
}

// segmentOf returns the segment of a location, nil if it is not in use.
func (l *Log) segmentOf(at format.Location) *segment {
	id, _, _ := l.geometry.Place(at)
	if int(id) >= len(l.segments) {
		return nil
	}
	return l.segments[id]
}

// freeSegments returns how many more segments the disks have room for.
func (l *Log) freeSegments() int { return l.segmentsIn(func(d *disk) int { return d.free }) }

// totalSegments returns how many segments the disks have room for. Those that
// there are stay where they are until they are cleaned: after another disk was
// added to full ones, there is room for few more at first.
func (l *Log) totalSegments() int {
	placed := 0
	for _, s := range l.segments {
		if s != nil {
			placed++
		}
	}
	return min(placed+l.freeSegments(), l.segmentsIn(func(d *disk) int { return len(d.slots) }))
}

// segmentsIn returns the most segments that can be placed in slots, with each
// shard on a disk of its own.
func (l *Log) segmentsIn(slots func(*disk) int) int {
	low, high := 0, 0
	width := l.width()
	if width < l.geometry.DataShards {
		return 0
	}
	for _, d := range l.disks {
		if d.usable() {
			high += slots(d)
		}
	}
	high /= width
	for low < high {
		try := (low + high + 1) / 2
		room := 0
		for _, d := range l.disks {
			if d.usable() {
				room += min(slots(d), try)
			}
		}
		if room >= try*width {
			low = try
		} else {
			high = try - 1
		}
	}
	return low
}

// width is how many shards a new segment gets.
func (l *Log) width() int {
	usable := 0
	for _, d := range l.disks {
		if d.usable() {
			usable++
		}
	}
	return min(usable, l.geometry.Shards())
}

// reserve makes a segment for a stream, nil if there is no room. Where disks are
// missing its parity shards are left out first, so that reads need no parity.
func (l *Log) reserve(stream format.Stream) *segment {
	width := l.width()
	if width < l.geometry.DataShards || l.freeSegments() == 0 {
		return nil
	}
	s := &segment{id: l.freeID(), stream: stream, shards: make([]format.ShardRecord, l.geometry.Shards())}
	for i := range s.shards {
		s.shards[i].Disk = format.NoDisk
	}
	chosen := l.emptiest(width)
	for i, d := range chosen {
		shard := (i + int(s.id)) % width
		s.shards[shard] = format.ShardRecord{Disk: uint8(d.index), Slot: d.takeSlot(s)}
	}
	l.segments[s.id] = s
	return s
}

// emptiest returns the n usable disks with the most free slots, in order of index.
func (l *Log) emptiest(n int) []*disk {
	var chosen []*disk
	for _, d := range l.disks {
		if d.usable() && d.free > 0 {
			chosen = append(chosen, d)
		}
	}
	for len(chosen) > n {
		fullest := 0
		for i, d := range chosen {
			if d.free < chosen[fullest].free {
				fullest = i
			}
		}
		chosen = append(chosen[:fullest], chosen[fullest+1:]...)
	}
	return chosen
}

func (l *Log) freeID() format.SegmentID {
	for i := l.newIDsFrom; i < len(l.segments); i++ {
		if l.segments[i] == nil {
			return format.SegmentID(i)
		}
	}
	l.segments = append(l.segments, nil)
	return format.SegmentID(len(l.segments) - 1)
}

// drop makes a segment free. Nothing may refer to it.
func (l *Log) drop(s *segment) {
	if s.live != 0 || s.meta != 0 {
		panic(fmt.Sprintf("drop segment %d with %d+%d useful blocks", s.id, s.live, s.meta))
	}
	for _, shard := range s.shards {
		if shard.Disk != format.NoDisk && l.disks[shard.Disk].slots[shard.Slot] == s {
			l.disks[shard.Disk].freeSlot(shard.Slot)
		}
	}
	l.segments[s.id] = nil
}

// shardOffset is where a column of a shard is on its disk, in bytes.
func (l *Log) shardOffset(shard format.ShardRecord, column int) int64 {
	return l.geometry.SlotOffset(shard.Slot) + int64(column)*block.BlockBytes
}
