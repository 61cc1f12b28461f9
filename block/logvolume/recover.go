package logvolume

import (
	"errors"
	"fmt"
	"slices"

	"torpor/block"
	"torpor/block/logvolume/clean"
	"torpor/block/logvolume/format"
)

// recover makes the log what it was: the newest checkpoint, then the rows since,
// then the journal; and writes a checkpoint of a new epoch, so that nothing that
// lies behind a gap is ever taken for a row again. The log is not running yet.
func (l *Log) recover() error {
	if err := l.loadCheckpoint(); err != nil {
		return fmt.Errorf("load checkpoint: %w", err)
	}
	rows, err := l.replayRows()
	if err != nil {
		return fmt.Errorf("replay rows: %w", err)
	}
	for id := range l.early {
		return fmt.Errorf("replay rows: segment %d of the checkpoint is begun by none: %w", id, block.ErrCorrupt)
	}
	records, err := l.replayJournal()
	if err != nil {
		return fmt.Errorf("replay journal: %w", err)
	}
	l.mu.Lock()
	l.epoch++
	l.finishedRow, l.durableRow = l.nextRow-1, l.nextRow-1
	l.finishedSequence, l.settledSequence, l.durable = l.cutSequence, l.cutSequence, l.cutSequence
	l.partSequence = l.cutSequence
	for _, d := range l.disks {
		l.miss(d)
	}
	for _, s := range l.segments {
		if s != nil && s.state == sealed && s.live == 0 && s.meta == 0 {
			s.cleaned = true
		}
	}
	for stream := range l.streams {
		if st := &l.streams[stream]; st.next == nil {
			st.next = l.reserveFor(format.Stream(stream))
		}
	}
	l.mu.Unlock()
	// Without a policy it may take the segments that are kept for cleaning, which has
	// to wait for a checkpoint, and that for what is written here.
	if err := l.drain(); err != nil {
		return err
	}
	l.mu.Lock()
	l.policy = clean.For(l.totalSegments())
	l.spaceBlocks = l.capacity()
	l.mu.Unlock()
	l.recovered = Recovery{Rows: rows, Records: records}
	return l.checkpoint()
}

// miss has a disk out that is missing or was out already. Of rows that were
// written since the checkpoint it may have none.
func (l *Log) miss(d *disk) {
	if d.usable() {
		return
	}
	for _, s := range l.segments {
		if s != nil && (s.state != sealed || s.sealed >= l.root.Row) {
			markStale(s.shards, d.index)
		}
	}
	switch {
	case d.state != format.DiskOut:
		d.state, d.reason, l.stale = format.DiskOut, errors.New("it is missing"), true
		l.event(d.name, "disk %s is not used any more: %v", d.name, d.reason)
	case d.reason == nil:
		d.reason = errors.New("it was out when the log was opened")
	}
}

// Recovery says what Open had to do.
type Recovery struct {
	Rows    int // read since the newest checkpoint
	Records int // of the journal
}

// drain writes everything that is queued, before the cutter runs.
func (l *Log) drain() error {
	for {
		l.mu.Lock()
		if len(l.queue.changes) == 0 || l.failed != nil {
			defer l.mu.Unlock()
			return l.failed
		}
		r := l.cutChanges()
		l.mu.Unlock()
		switch {
		case r != nil:
			l.write(r)
		case l.releaseUseless() == 0:
			return fmt.Errorf("write what the journal had: %w", block.ErrNoSpace)
		}
	}
}

// releaseUseless makes segments free that the checkpoint and the rows since do not
// need, and returns how many. What made them useless is made durable first.
func (l *Log) releaseUseless() int {
	l.syncDisks(l.disks)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropReleasable()
}

// loadCheckpoint loads the newest checkpoint, if there is one.
func (l *Log) loadCheckpoint() error {
	l.nextRow = 1
	if l.root.Row == 0 {
		return nil
	}
	for _, place := range l.root.Segments {
		l.setSegment(&segment{id: place.ID, stream: format.Meta, state: sealed, shards: place.Shards})
	}
	manifest, blocks, err := l.readManifest()
	if err != nil {
		return err
	}
	root := l.segments
	l.segments = nil
	l.nextRow, l.checkpointRow = manifest.Row, manifest.Row
	l.durableRow = manifest.Row - 1
	l.cutSequence, l.lastSequence = manifest.Sequence, manifest.Sequence
	l.nextLayer, l.counters.Counters = manifest.NextLayer, manifest.Counters
	l.manifestBlocks = blocks
	l.missReplaced(manifest)
	if err := l.loadSegments(manifest); err != nil {
		return err
	}
	l.loadEarly(manifest, root)
	return l.loadLayers(manifest)
}

// loadEarly makes known where younger segments are, and those of the root that
// are younger still.
func (l *Log) loadEarly(m *format.Manifest, root []*segment) {
	l.early = map[format.SegmentID]bool{}
	note := func(id format.SegmentID, shards []format.ShardRecord) {
		if int(id) >= len(l.segments) || l.segments[id] == nil {
			l.setSegment(&segment{id: id, stream: format.Meta, shards: shards})
			l.early[id] = true
		}
	}
	for _, place := range m.Younger {
		note(place.ID, place.Shards)
	}
	for _, s := range root {
		if s != nil {
			note(s.id, s.shards)
		}
	}
}

// missReplaced marks the shards of disks that were replaced since the checkpoint.
func (l *Log) missReplaced(m *format.Manifest) {
	for i, d := range l.disks {
		if i < len(m.Disks) && m.Disks[i] == d.id {
			continue
		}
		for _, s := range m.Segments {
			markStale(s.Shards, i)
		}
		for _, st := range m.Streams {
			markStale(st.NextShards, i)
		}
		for _, place := range m.Younger {
			markStale(place.Shards, i)
		}
	}
}

func markStale(shards []format.ShardRecord, disk int) {
	for i := range shards {
		if int(shards[i].Disk) == disk {
			shards[i].Stale = true
		}
	}
}

// readManifest also returns the blocks that manifest and index are in.
func (l *Log) readManifest() (*format.Manifest, []format.Entry, error) {
	count := int((l.root.ManifestBytes + format.BlockBytes - 1) / format.BlockBytes)
	parts := make([]format.Entry, count)
	index, err := l.readBlocksOf(l.root.Index)
	if err != nil {
		return nil, nil, fmt.Errorf("read index of manifest: %w", err)
	}
	for i := range l.root.Index {
		of := parts[i*format.LeafEntries : min((i+1)*format.LeafEntries, count)]
		if err := format.DecodeIndex(index[i*format.BlockBytes:(i+1)*format.BlockBytes], of); err != nil {
			return nil, nil, err
		}
	}
	content, err := l.readBlocksOf(parts)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	manifest, err := format.DecodeManifest(content[:l.root.ManifestBytes])
	if err != nil {
		return nil, nil, err
	}
	return manifest, append(parts, l.root.Index...), manifest.Fits(l.superOf(l.disks[0]))
}

// readBlocksOf reads blocks one behind another. Their segments must be known.
func (l *Log) readBlocksOf(entries []format.Entry) ([]byte, error) {
	content := block.AlignedBuffer(len(entries) * format.BlockBytes)
	blocks := make([][]byte, len(entries))
	for i, e := range entries {
		if l.segmentOf(e.Location()) == nil {
			return nil, fmt.Errorf("location %d is in no segment: %w", e.Location(), block.ErrCorrupt)
		}
		blocks[i] = content[i*format.BlockBytes : (i+1)*format.BlockBytes]
	}
	return content, l.readEntries(entries, blocks)
}

func (l *Log) setSegment(s *segment) {
	for int(s.id) >= len(l.segments) {
		l.segments = append(l.segments, nil)
	}
	l.segments[s.id] = s
}

// occupy puts a segment in place, and takes its slots.
func (l *Log) occupy(s *segment) error {
	for i, shard := range s.shards {
		if shard.Disk == format.NoDisk {
			continue
		}
		if int(shard.Disk) >= len(l.disks) || int(shard.Slot) >= len(l.disks[shard.Disk].slots) {
			return fmt.Errorf("segment %d shard %d is on disk %d slot %d: %w", s.id, i, shard.Disk, shard.Slot, block.ErrCorrupt)
		}
		d := l.disks[shard.Disk]
		if other := d.slots[shard.Slot]; other != nil {
			return fmt.Errorf("segments %d and %d are both in slot %d of disk %s: %w", s.id, other.id, shard.Slot, d.name, block.ErrCorrupt)
		}
		d.slots[shard.Slot], d.written[shard.Slot] = s, true
		d.free--
	}
	l.setSegment(s)
	return nil
}

func (l *Log) loadSegments(m *format.Manifest) error {
	for _, record := range m.Segments {
		s := &segment{id: record.ID, stream: record.Stream, state: open, shards: record.Shards, columns: int(record.Columns),
			live: int(record.Live)}
		s.wrote(s.columns*l.geometry.DataShards, clean.Time(record.Written))
		s.use.Sealed = clean.Time(record.SealedAt)
		if record.Sealed {
			s.state, s.sealed = sealed, m.Row-1
		}
		if err := l.occupy(s); err != nil {
			return err
		}
		l.live += s.live
	}
	for i, record := range m.Streams {
		st := &l.streams[i]
		if record.Segment != format.NoSegment {
			if int(record.Segment) >= len(l.segments) || l.segments[record.Segment] == nil {
				return fmt.Errorf("open segment %d is not known: %w", record.Segment, block.ErrCorrupt)
			}
			st.open = l.segments[record.Segment]
			st.open.named = true
		}
		if record.Next != format.NoSegment {
			st.next = &segment{id: record.Next, stream: format.Stream(i), shards: record.NextShards}
			if err := l.occupy(st.next); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) loadLayers(m *format.Manifest) error {
	for _, record := range m.Layers {
		if record.MergedInto != 0 {
			l.blocks.AddMerged(record.ID, record.MergedInto)
			continue
		}
		y := &layer{id: record.ID, parent: record.Parent, sizeBlocks: format.Block(record.SizeBlocks), volume: record.Volume,
			snapshot: record.Snapshot, of: record.Of, createdUnixNS: record.CreatedUnixNS, removed: record.Removed}
		l.addLayer(y)
		l.blocks.Load(y.id, record.Leaves)
		for _, leaf := range record.Leaves {
			if err := l.countMeta(leaf.At); err != nil {
				return err
			}
		}
	}
	for _, e := range l.manifestBlocks {
		if err := l.countMeta(e); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) countMeta(e format.Entry) error {
	s := l.segmentOf(e.Location())
	if s == nil {
		return fmt.Errorf("location %d is in no segment: %w", e.Location(), block.ErrCorrupt)
	}
	s.meta++
	l.meta++
	return nil
}

// replay is the reading of rows in order.
type replay struct {
	log     *Log
	peeked  [format.StreamCount]*foundRow
	pending []*foundRow // not known to be durable yet
	durable format.RowNumber
	count   int
}

// replayRows applies all rows since the checkpoint, up to the first that is not
// whole. It returns how many.
func (l *Log) replayRows() (int, error) {
	p := &replay{log: l, durable: l.nextRow - 1}
	for {
		f, err := p.take()
		if err != nil {
			return p.count, err
		}
		if f == nil {
			break
		}
		p.durable = max(p.durable, f.header.Durable)
		p.pending = append(p.pending, f)
		if err := p.applyDurable(); err != nil {
			return p.count, err
		}
	}
	for _, f := range p.pending {
		if !l.verifyRow(f) {
			// From here on nothing was acknowledged as durable.
			p.forget(f)
			return p.count, nil
		}
		if err := p.apply(f); err != nil {
			return p.count, err
		}
	}
	return p.count, nil
}

func (p *replay) applyDurable() error {
	for len(p.pending) > 0 && p.pending[0].header.Number <= p.durable {
		if err := p.apply(p.pending[0]); err != nil {
			return err
		}
		p.pending = p.pending[1:]
	}
	return nil
}

// take returns the header of the next row, nil if there is none. Its segment is
// in place and counts its columns.
func (p *replay) take() (*foundRow, error) {
	number := p.log.nextRow
	for stream := range p.peeked {
		if p.peeked[stream] == nil {
			p.peeked[stream] = p.log.findRow(format.Stream(stream), number)
		}
		f := p.peeked[stream]
		if f == nil || f.header.Number != number {
			continue
		}
		p.peeked[stream] = nil
		return f, p.place(f)
	}
	return nil, nil
}

// place makes a row's segment the open one of its stream, and the next one what
// the row says.
func (p *replay) place(f *foundRow) error {
	l, h := p.log, &f.header
	st := &l.streams[h.Stream]
	f.before = *st
	f.columnsBefore = f.segment.columns
	if st.open != f.segment {
		if st.open != nil {
			st.open.state, st.open.sealed, st.open.use.Sealed = sealed, h.Number-1, l.now()
		}
		f.segment.state = open
		st.open, st.next = f.segment, nil
	}
	f.segment.columns = int(h.Column + h.Columns)
	f.segment.named = h.Next != format.NoSegment
	l.nextRow = h.Number + 1
	if h.Next == format.NoSegment || st.next != nil && st.next.id == h.Next {
		return nil
	}
	if st.next != nil {
		return fmt.Errorf("row %d goes on in segment %d, the one before in %d: %w", h.Number, h.Next, st.next.id, block.ErrCorrupt)
	}
	// It was free when the row was written. What had its number or slots was
	// released, and is useless once the rows before are applied.
	f.next = &segment{id: h.Next, stream: h.Stream, shards: h.NextShards}
	if l.early[h.Next] {
		delete(l.early, h.Next)
		f.next = l.segments[h.Next]
		f.next.stream = h.Stream
	}
	st.next = f.next
	return p.evict(f)
}

// evict has the former users of a next segment's number and slots go. They are
// useless for they were released: after all rows were applied that were durable
// then. So those are applied first.
func (p *replay) evict(f *foundRow) error {
	l := p.log
	former := map[*segment]bool{}
	if int(f.next.id) < len(l.segments) && l.segments[f.next.id] != nil && l.segments[f.next.id] != f.next {
		former[l.segments[f.next.id]] = true
	}
	for _, shard := range f.next.shards {
		if shard.Disk != format.NoDisk && int(shard.Disk) < len(l.disks) && int(shard.Slot) < len(l.disks[shard.Disk].slots) {
			if s := l.disks[shard.Disk].slots[shard.Slot]; s != nil {
				former[s] = true
			}
		}
	}
	if len(former) > 0 {
		p.durable = max(p.durable, f.header.Durable)
		if err := p.applyDurable(); err != nil {
			return err
		}
	}
	for s := range former {
		if s.live != 0 || s.meta != 0 || s.state != sealed {
			return fmt.Errorf("segment %d has %d+%d useful blocks and was released: %w", s.id, s.live, s.meta, block.ErrCorrupt)
		}
		l.drop(s)
	}
	return l.occupy(f.next)
}

// forget takes back that a row and all behind it were placed.
func (p *replay) forget(first *foundRow) {
	l := p.log
	i := slices.Index(p.pending, first)
	for _, f := range slices.Backward(p.pending[i:]) {
		if f.next != nil {
			l.drop(f.next)
		}
		st := &l.streams[f.header.Stream]
		if st.open != f.before.open {
			f.segment.state = reserved
			if f.before.open != nil {
				f.before.open.state = open
			}
		}
		*st = f.before
		f.segment.columns = f.columnsBefore
	}
	l.nextRow = first.header.Number
}

// apply makes the map say what a row does.
func (p *replay) apply(f *foundRow) error {
	l, h := p.log, &f.header
	p.count++
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.loadExtents(h.Extents); err != nil {
		return fmt.Errorf("apply row %d: %w", h.Number, err)
	}
	i := 0
	for _, e := range h.Extents {
		if e.Kind == format.KindData || e.Kind == format.KindHole {
			if err := l.applyExtent(f, e, i); err != nil {
				return fmt.Errorf("apply row %d: %w", h.Number, err)
			}
		}
		i += e.Stored()
	}
	l.cutSequence = max(l.cutSequence, h.Sequence)
	l.lastSequence = max(l.lastSequence, h.Sequence)
	f.segment.wrote(len(h.Sums), l.now())
	if h.Stream == format.Hot {
		l.counters.UserWritten += uint64(len(h.Sums))
	}
	return nil
}

// loadExtents reads leaves that extents of data change, many at once.
func (l *Log) loadExtents(extents []format.Extent) error {
	var absent []missingLeaf
	for _, e := range extents {
		if owner, start, count := l.placeOf(e); owner != 0 && e.Kind == format.KindData && len(absent) < maxLoad {
			absent = append(absent, l.blocks.Absent(owner, start, count, maxLoad-len(absent))...)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	return l.loadAll(absent)
}

// placeOf returns where the blocks of an extent belong now; layer 0: nowhere.
func (l *Log) placeOf(e format.Extent) (owner format.LayerID, start format.Block, count uint64) {
	owner, start = l.ownerOf(e.Layer), format.Block(e.Start)
	if owner == 0 || start >= l.layers[owner].sizeBlocks {
		return 0, 0, 0
	}
	return owner, start, min(uint64(e.Count), uint64(l.layers[owner].sizeBlocks-start))
}

func (l *Log) applyExtent(f *foundRow, e format.Extent, first int) error {
	owner, start, count := l.placeOf(e)
	if owner == 0 {
		return nil
	}
	if _, err := l.loadRange(owner, start, count); err != nil {
		return err
	}
	if e.Kind == format.KindHole {
		if _, missing := l.blocks.SetHoles(owner, start, count, l.useless); missing != nil {
			return fmt.Errorf("leaf %d is missing", missing.Leaf)
		}
		return nil
	}
	for i := range int(count) {
		at := f.at(l.geometry, first+i)
		old, _ := l.blocks.Set(owner, start+format.Block(i), format.NewEntry(at, f.header.Sums[first+i]))
		f.segment.live++
		l.live++
		l.useless(old)
	}
	return nil
}

// ownerOf returns the layer that has the blocks of another now, 0 if none has.
func (l *Log) ownerOf(id format.LayerID) format.LayerID {
	if l.layers[id] != nil {
		return id
	}
	if into, ok := l.blocks.MergedInto(id); ok && l.layers[into] != nil {
		return into
	}
	return 0
}
