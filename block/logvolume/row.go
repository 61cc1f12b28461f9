package logvolume

import (
	"fmt"

	"torpor/block/logvolume/clean"
	"torpor/block/logvolume/format"
)

// row is a row that was cut: it has its place and its number, and the map
// points into it. Until it is written reads take its pages.
type row struct {
	header       format.Row
	headerBlocks int
	segment      *segment
	pages        []*page // the stored blocks in order
	shardsDone   int     // how many shards were written
	finished     bool
	late         bool // a disk is still writing it
}

// pageAt returns the page of a slot; nil for the header.
func (r *row) pageAt(shard, column int) *page {
	switch i := shard*int(r.header.Columns) + column - r.headerBlocks; {
	case i < 0:
		return nil
	case i < len(r.pages):
		return r.pages[i]
	}
	return zeroPage
}

// stripeBlocks is the most blocks that a row has, with its header: so that full
// rows fill a segment without a rest.
func (l *Log) stripeBlocks() int { return int(l.geometry.StripeBytes / format.BlockBytes) }

// draft collects what a row is to hold.
type draft struct {
	log     *Log
	segment *segment
	columns int // left in the segment
	row     *row
}

// draft begins a row in the open segment of a stream, where a block fits unless
// the row is needed to name the next segment. It returns nil if there is no
// segment and none can be had now. Log.mu is held, and has to be until the row is cut.
func (l *Log) draft(stream format.Stream) *draft {
	st := &l.streams[stream]
	if st.next == nil {
		st.next = l.reserveFor(stream)
	}
	if st.open != nil {
		d := l.draftIn(st.open)
		switch {
		case d.fits(1, 1) && !st.open.full, st.next != nil && !st.open.named:
			return d
		case st.next == nil:
			return nil
		}
		l.seal(st.open)
	}
	if st.next == nil {
		return nil
	}
	st.open, st.next = st.next, nil
	st.open.state = open
	st.next = l.reserveFor(stream)
	return l.draftIn(st.open)
}

// draftIn keeps a column as long as no next segment is known: a row without
// blocks names it there, or recovery would not find it.
func (l *Log) draftIn(s *segment) *draft {
	columns := l.geometry.Columns() - s.columns
	if l.streams[s.stream].next == nil {
		columns--
	}
	return &draft{log: l, segment: s, columns: columns, row: &row{segment: s, header: format.Row{
		Log: l.id, Epoch: l.epoch, Stream: s.stream, Segment: s.id, Column: uint32(s.columns), Next: format.NoSegment,
	}}}
}

// room is how many more blocks fit if they come with so many more extents.
func (d *draft) room(extents int) int {
	n := 0
	for step := 1 << 20; step > 0; step /= 2 {
		if d.fits(len(d.row.pages)+n+step, extents) {
			n += step
		}
	}
	return n
}

func (d *draft) fits(stored, extents int) bool {
	header := d.log.headerBlocks(len(d.row.header.Extents)+extents, stored)
	return header+stored <= min(d.log.stripeBlocks(), d.columns*d.log.geometry.DataShards)
}

// headerBlocks is the size of a header with room for the shards of a next segment.
func (l *Log) headerBlocks(extents, stored int) int {
	return format.RowHeaderBlocks(l.geometry.Shards(), extents, stored)
}

// add appends an extent with its pages, as many as it stores. It must fit. One
// that continues the last one becomes a part of it.
func (d *draft) add(e format.Extent, pages []*page) {
	h := &d.row.header
	if n := len(h.Extents); n > 0 && continues(h.Extents[n-1], e) {
		h.Extents[n-1].Count += e.Count
	} else {
		h.Extents = append(h.Extents, e)
	}
	d.row.pages = append(d.row.pages, pages...)
	for _, p := range pages {
		h.Sums = append(h.Sums, p.sum)
	}
}

func continues(a, b format.Extent) bool {
	return a.Kind == b.Kind && a.Layer == b.Layer && a.Start+uint64(a.Count) == b.Start && uint64(a.Count)+uint64(b.Count) < 1<<32
}

// cut gives the row its number and place and counts it in. The caller then
// points the map to it, by at, and hands it to Log.write. Log.mu is held.
func (d *draft) cut(through format.Sequence) *row {
	l, r := d.log, d.row
	h := &r.header
	if next := l.streams[d.segment.stream].next; next != nil {
		h.Next, h.NextShards = next.id, append([]format.ShardRecord(nil), next.shards...)
		r.segment.named = true
	}
	r.headerBlocks = h.HeaderBlocks()
	k := l.geometry.DataShards
	h.Columns = uint32((r.headerBlocks + len(r.pages) + k - 1) / k)
	h.Number = l.nextRow
	h.Sequence = through
	h.Durable = l.durableRow
	l.nextRow++
	s := r.segment
	s.columns += int(h.Columns)
	s.rows = append(s.rows, r)
	if s.stream != format.Hot {
		l.dirtyPages += len(r.pages)
	}
	l.sinceBlocks += int(h.Columns) * k
	l.inFlight++
	l.unfinished = append(l.unfinished, r)
	l.counters.count(h, l.geometry)
	return r
}

// at is the location of the i-th stored block.
func (r *row) at(g format.Geometry, i int) format.Location {
	slot := r.headerBlocks + i
	columns := int(r.header.Columns)
	return g.At(r.segment.id, slot/columns, int(r.header.Column)+slot%columns)
}

// point makes the map say where a stored block of the row is, and counts what
// that makes useful and useless. The leaf must be in memory.
func (l *Log) point(layer format.LayerID, at format.Block, r *row, i int) {
	old, missing := l.blocks.Set(layer, at, format.NewEntry(r.at(l.geometry, i), r.pages[i].sum))
	if missing != nil {
		panic(fmt.Sprintf("point block %d of layer %d: leaf is not in memory", at, layer))
	}
	r.segment.live++
	l.live++
	l.useless(old)
}

// useless counts a block out that the map does not point to any more.
func (l *Log) useless(old format.Entry) {
	if !old.Mapped() {
		return
	}
	s := l.segmentOf(old.Location())
	s.live--
	l.live--
	if s.live < 0 {
		panic(fmt.Sprintf("segment %d has fewer useful blocks than none", s.id))
	}
}

// reserveFor reserves a segment for a stream. The last free ones are for the
// cleaner, and of those the last for the map, without which nothing is ever released.
func (l *Log) reserveFor(stream format.Stream) *segment {
	free := l.freeSegments()
	kept := l.mapReserve()
	if free <= l.policy.Low+kept {
		l.wakeCleaner()
	}
	if stream == format.Hot && free <= l.policy.Reserve+kept || stream != format.Meta && free <= metaReserve {
		return nil
	}
	return l.reserve(stream)
}

// metaReserve segments are kept free for the map.
const metaReserve = 1

// now is the time that the cleaner's policy knows: blocks that users wrote.
func (l *Log) now() clean.Time { return clean.Time(l.counters.UserWritten) }

func (l *Log) seal(s *segment) {
	s.state = sealed
	s.sealed = l.nextRow - 1
	s.use.Sealed = l.now()
}

// stream is where rows of a kind go.
type stream struct {
	open, next *segment
}
