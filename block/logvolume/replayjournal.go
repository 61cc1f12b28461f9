package logvolume

import (
	"cmp"
	"errors"
	"slices"
	"sync"

	"torpor/block/logvolume/format"
)

// foundRecord is a journal record that was found whole on a disk.
type foundRecord struct {
	header format.Record
	pages  []*page
}

// replayJournal queues the changes of the journal that no row has. It returns of
// how many records.
func (l *Log) replayJournal() (int, error) {
	records := l.readJournals()
	slices.SortFunc(records, func(a, b foundRecord) int {
		return cmp.Or(cmp.Compare(a.header.After, b.header.After), cmp.Compare(b.header.Through, a.header.Through))
	})
	count := 0
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		if r.header.After > l.lastSequence || r.header.Through <= l.lastSequence {
			l.pages.put(r.pages)
			continue
		}
		count++
		l.requeue(r)
	}
	return count, nil
}

// requeue queues the changes of a record. Those that rows have too come again:
// what a later one of the record does to the same blocks comes again behind them.
func (l *Log) requeue(r foundRecord) {
	l.lastSequence = r.header.Through
	pages := r.pages
	for _, e := range r.header.Extents {
		owner := l.ownerOf(e.Layer)
		n := e.Stored()
		own := pages[:n]
		pages = pages[n:]
		if owner == 0 || format.Block(e.Start)+format.Block(e.Count) > l.layers[owner].sizeBlocks {
			l.pages.put(own)
			continue
		}
		l.queue.add(change{sequence: r.header.Through, kind: e.Kind, layer: owner, start: format.Block(e.Start), count: e.Count, pages: own})
		l.dirtyPages += n
	}
}

// readJournals returns the records on all disks that go beyond what rows have.
func (l *Log) readJournals() (records []foundRecord) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, d := range l.disks {
		if !d.usable() {
			continue
		}
		wait.Go(func() {
			found := l.readJournal(d)
			mu.Lock()
			defer mu.Unlock()
			records = append(records, found...)
		})
	}
	wait.Wait()
	return records
}

// journalPieceBytes is how much of a journal is read at once.
const journalPieceBytes = 4 << 20

// readJournal returns the records of one disk. What can not be read is left out:
// other disks have it.
func (l *Log) readJournal(d *disk) (records []foundRecord) {
	for off := int64(0); off < d.journal.bytes; off += journalPieceBytes {
		piece, err := l.readSome(d, format.HeadBytes+off, int(min(journalPieceBytes, d.journal.bytes-off)/format.BlockBytes))
		if errors.Is(err, errLate) {
			break
		}
		if err != nil {
			continue
		}
		for at := 0; at < len(piece); at += format.BlockBytes {
			p, err := format.DecodeRecordPrefix(piece[at : at+format.BlockBytes])
			if err != nil || p.Log != l.id || p.Epoch != l.epoch || p.Through <= l.cutSequence || p.Fits(l.geometry) != nil {
				continue
			}
			if r, ok := l.readRecord(d, off+int64(at), p); ok {
				records = append(records, r)
			}
		}
		l.buffers.put(piece)
	}
	return records
}

// readRecord reads a whole record, and says whether it is one.
func (l *Log) readRecord(d *disk, off int64, p format.RecordPrefix) (r foundRecord, ok bool) {
	size := int64(p.HeaderBlocks+p.StoredBlocks) * format.BlockBytes
	if off+size > d.journal.bytes {
		return r, false
	}
	b, err := l.readSome(d, format.HeadBytes+off, int(size/format.BlockBytes))
	if err != nil {
		return r, false
	}
	defer l.buffers.put(b)
	h, err := format.DecodeRecord(b)
	if err != nil || h.Prefix() != p {
		return r, false
	}
	r = foundRecord{header: *h, pages: l.pages.pagesOf(b[p.HeaderBlocks*format.BlockBytes:])}
	for i, page := range r.pages {
		if page.sum != h.Sums[i] {
			l.pages.put(r.pages)
			return r, false
		}
	}
	return r, true
}
