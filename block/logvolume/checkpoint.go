package logvolume

import (
	"fmt"

	"torpor/block/logvolume/blockmap"
	"torpor/block/logvolume/format"
)

// checkpoint writes what the map has become since the last one, so that recovery
// need not read rows of before. One at a time; changes go on meanwhile.
func (l *Log) checkpoint() error {
	l.checkpointMu.Lock()
	defer l.checkpointMu.Unlock()
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	frozen := l.blocks.Freeze()
	l.frozen = frozen
	manifest := l.manifest()
	l.newIDsFrom = len(l.segments)
	drops := l.drops
	l.sinceBlocks = 0
	l.mu.Unlock()

	root, blocks, err := l.writeCheckpoint(frozen, manifest)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newIDsFrom = 0
	l.frozen, l.pressed = nil, false
	if err != nil {
		frozen.Abandon()
		err = fmt.Errorf("write checkpoint: %w", err)
		l.failLocked(err)
		return err
	}
	l.checkpointRow, l.dropsSaved = root.Row, drops
	for _, s := range l.segments {
		if s != nil {
			s.stuck = false
		}
	}
	l.retire(append(l.released, l.manifestBlocks...))
	l.released, l.manifestBlocks = nil, blocks
	frozen.Done()
	l.progress.Broadcast()
	return nil
}

// retire counts meta blocks out that no checkpoint has any more.
func (l *Log) retire(entries []format.Entry) {
	for _, e := range entries {
		l.segmentOf(e.Location()).meta--
		l.meta--
	}
}

// writeCheckpoint writes leaves, manifest and superblocks. It returns the root
// and the blocks of the manifest and its index.
func (l *Log) writeCheckpoint(frozen *blockmap.Frozen, manifest *format.Manifest) (format.Root, []format.Entry, error) {
	root := format.Root{Row: manifest.Row}
	if err := l.writeLeaves(frozen); err != nil {
		return root, nil, err
	}
	l.collectLeaves(frozen, manifest)
	for {
		l.mu.Lock()
		outs := l.outs
		l.noteStale(manifest)
		l.noteYounger(manifest)
		l.mu.Unlock()
		blocks, err := l.writeManifest(&root, manifest)
		if err == nil {
			err = l.syncRows()
		}
		if err != nil {
			return root, nil, err
		}
		l.mu.Lock()
		same := outs == l.outs
		if !same {
			// What a disk lacks that was lost meanwhile is to be in the manifest.
			l.retire(blocks)
		}
		l.mu.Unlock()
		if same {
			return root, blocks, l.writeSupers(&root)
		}
	}
}

// writeManifest writes a manifest and its index, and returns their blocks.
func (l *Log) writeManifest(root *format.Root, manifest *format.Manifest) ([]format.Entry, error) {
	content := manifest.Encode()
	root.ManifestBytes = uint64(len(content))
	parts, err := l.writeMeta(format.KindManifest, l.pagesFor(content))
	if err != nil {
		return nil, err
	}
	var index []*page
	for i := 0; i < len(parts); i += format.LeafEntries {
		p := l.newPage()
		format.EncodeIndex(p.data, parts[i:min(i+format.LeafEntries, len(parts))])
		p.sum = checksum(p.data)
		index = append(index, p)
	}
	if root.Index, err = l.writeMeta(format.KindIndex, index); err != nil {
		return nil, err
	}
	blocks := append(parts, root.Index...)
	root.Segments, err = l.placesFor(blocks)
	return blocks, err
}

// noteStale adds to a manifest which shards became stale since it was made.
func (l *Log) noteStale(manifest *format.Manifest) {
	for _, record := range manifest.Segments {
		if int(record.ID) >= len(l.segments) || l.segments[record.ID] == nil {
			continue
		}
		for i, shard := range l.segments[record.ID].shards {
			if own := &record.Shards[i]; own.Disk == shard.Disk && own.Slot == shard.Slot {
				own.Stale = own.Stale || shard.Stale
			}
		}
	}
}

// placesFor says where the segments of some blocks are.
func (l *Log) placesFor(entries []format.Entry) (places []format.PlaceRecord, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[format.SegmentID]bool{}
	for _, e := range entries {
		s := l.segmentOf(e.Location())
		if !seen[s.id] {
			seen[s.id] = true
			places = append(places, format.PlaceRecord{ID: s.id, Shards: append([]format.ShardRecord(nil), s.shards...)})
		}
	}
	if len(places) > format.MaxRootSegments {
		return nil, fmt.Errorf("manifest is in %d segments, %d are possible: use longer shards", len(places), format.MaxRootSegments)
	}
	return places, nil
}

// syncRows makes all rows durable that were cut until now. It waits for no
// flush: one may be waiting for a segment that only this can release.
func (l *Log) syncRows() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settle(l.cutSequence, l.cutSequence)
}

// writeLeaves writes the leaves of a checkpoint.
func (l *Log) writeLeaves(frozen *blockmap.Frozen) error {
	for {
		l.mu.Lock()
		batch := frozen.Next(l.stripeBlocks() / 2)
		l.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		pages := make([]*page, len(batch))
		l.pages.get(pages)
		for i, leaf := range batch {
			format.EncodeLeaf(pages[i].data, leaf.Entries)
			pages[i].sum = checksum(pages[i].data)
		}
		err := l.writeBatch(pages, func(i int) format.Extent {
			return format.Extent{Kind: format.KindLeaf, Layer: batch[i].Layer, Start: uint64(batch[i].Index), Count: 1}
		}, func(i int, e format.Entry) { frozen.Written(batch[i].Layer, batch[i].Index, e) })
		if err != nil {
			return err
		}
	}
}

// writeMeta writes parts of the manifest or its index, and says where they are.
func (l *Log) writeMeta(kind format.ExtentKind, pages []*page) ([]format.Entry, error) {
	entries := make([]format.Entry, len(pages))
	err := l.writeBatch(pages, func(i int) format.Extent {
		return format.Extent{Kind: kind, Start: uint64(i), Count: 1}
	}, func(i int, e format.Entry) { entries[i] = e })
	return entries, err
}

// writeBatch writes pages as rows of the meta stream, and tells for each, under
// Log.mu, where it is.
func (l *Log) writeBatch(pages []*page, extent func(i int) format.Extent, placed func(i int, e format.Entry)) error {
	for i := 0; i < len(pages); {
		l.mu.Lock()
		d := l.draft(format.Meta)
		for d == nil && l.failed == nil {
			l.wakeCleaner()
			l.progress.Wait()
			d = l.draft(format.Meta)
		}
		if l.failed != nil {
			defer l.mu.Unlock()
			return l.failed
		}
		first := i
		for i < len(pages) && d.fits(len(d.row.pages)+1, 1) {
			d.add(extent(i), pages[i:i+1])
			i++
		}
		r := d.cut(l.cutSequence)
		for j := range r.pages {
			r.segment.meta++
			l.meta++
			placed(first+j, format.NewEntry(r.at(l.geometry, j), r.pages[j].sum))
		}
		l.mu.Unlock()
		l.write(r)
	}
	return nil
}

// noteYounger adds to a manifest where segments are that were begun since and
// hold leaves. Log.mu is held.
func (l *Log) noteYounger(manifest *format.Manifest) {
	known := map[format.SegmentID]bool{}
	for _, s := range manifest.Segments {
		known[s.ID] = true
	}
	for _, st := range manifest.Streams {
		known[st.Next] = true
	}
	manifest.Younger = nil
	for _, s := range l.segments {
		if s != nil && s.meta > 0 && !known[s.id] {
			manifest.Younger = append(manifest.Younger, format.PlaceRecord{ID: s.id, Shards: append([]format.ShardRecord(nil), s.shards...)})
		}
	}
}

// collectLeaves adds to a manifest where all leaves are.
func (l *Log) collectLeaves(frozen *blockmap.Frozen, manifest *format.Manifest) {
	for i := range manifest.Layers {
		record := &manifest.Layers[i]
		if record.MergedInto != 0 {
			continue
		}
		l.mu.Lock()
		records := frozen.Records(record.ID)
		for !records.Step(4096) {
			l.mu.Unlock()
			l.mu.Lock()
		}
		l.mu.Unlock()
		record.Leaves = records.Leaves()
	}
}

// manifest is what the log is at this moment, but for leaves. Log.mu is held.
func (l *Log) manifest() *format.Manifest {
	m := &format.Manifest{Row: l.nextRow, Sequence: l.cutSequence, NextLayer: l.nextLayer, Counters: l.counters.Counters}
	m.Layers = l.layerRecords()
	for _, d := range l.disks {
		m.Disks = append(m.Disks, d.id)
	}
	for _, s := range l.segments {
		if s == nil || s.state == reserved {
			continue
		}
		m.Segments = append(m.Segments, format.SegmentRecord{ID: s.id, Stream: s.stream, Sealed: s.state == sealed, Columns: uint32(s.columns),
			Live: uint32(s.live), Written: format.WriteTime(s.use.Written), SealedAt: format.WriteTime(s.use.Sealed), Shards: append([]format.ShardRecord(nil), s.shards...)})
	}
	for i, st := range l.streams {
		record := format.StreamRecord{Segment: format.NoSegment, Next: format.NoSegment}
		if st.open != nil {
			record.Segment, record.Column = st.open.id, uint32(st.open.columns)
		}
		if st.next != nil {
			record.Next, record.NextShards = st.next.id, append([]format.ShardRecord(nil), st.next.shards...)
		}
		m.Streams[i] = record
	}
	return m
}

func (l *Log) newPage() *page {
	p := make([]*page, 1)
	l.pages.get(p)
	return p[0]
}

// pagesFor copies bytes into pages, the last filled up with zeros.
func (l *Log) pagesFor(b []byte) []*page {
	padded := make([]byte, (len(b)+format.BlockBytes-1)/format.BlockBytes*format.BlockBytes)
	copy(padded, b)
	return l.pages.pagesOf(padded)
}

// runCheckpointer writes checkpoints when a recovery would have much to read.
func (l *Log) runCheckpointer() {
	defer l.workers.Done()
	for {
		select {
		case <-l.stop:
			return
		case <-l.kick:
		}
		l.mu.Lock()
		due := l.checkpointDue()
		l.mu.Unlock()
		if due {
			// An error has failed the log, and is told to whoever changes it.
			_ = l.checkpoint()
		}
	}
}

// checkpointDue says whether so much was written since the last checkpoint, or
// so many leaves are dirty, that another one pays.
func (l *Log) checkpointDue() bool {
	if l.failed != nil {
		return false
	}
	if l.pressed {
		return true
	}
	limit := l.options.CheckpointBytes
	if limit == 0 {
		limit = min(max(int64(l.live)*format.BlockBytes/16, 64<<20), 8<<30)
	}
	return int64(l.sinceBlocks)*format.BlockBytes > limit || l.blocks.DirtyBytes() > l.options.MapBytes/2
}
