package logvolume

import (
	"context"
	"fmt"

	"torpor/block/logvolume/format"
)

// Progress is told how far a long work is, in segments. It must return soon. It may be nil.
type Progress func(done, total int)

func (p Progress) tell(done, total int) {
	if p != nil {
		p(done, total)
	}
}

// ScrubReport says what a scrub found.
type ScrubReport struct {
	Segments       int
	Rows           int
	Blocks         int64 // read
	WrongBlocks    int64 // were not what they should be
	RepairedBlocks int64
	// Lost are rows that can not be made right from what is left; reads of what is
	// useful in them fail.
	Lost []string
}

// Scrub reads everything that is on the disks and compares it with its checksums
// and parity. With repair it writes what is wrong anew. The log stays in use.
func (l *Log) Scrub(ctx context.Context, repair bool, progress Progress) (ScrubReport, error) {
	var report ScrubReport
	l.mu.Lock()
	total := len(l.segments)
	l.mu.Unlock()
	for i := range total {
		if err := ctx.Err(); err != nil {
			return report, fmt.Errorf("scrub: %w", err)
		}
		progress.tell(i, total)
		s, columns := l.pinWritten(i)
		if s == nil {
			continue
		}
		report.Segments++
		err := l.eachRow(s, columns, true, func(f *foundRow) error {
			return l.scrubRow(f, repair, &report)
		})
		s.readers.Add(-1)
		if err != nil {
			report.Lost = append(report.Lost, err.Error())
		}
	}
	progress.tell(total, total)
	l.mu.Lock()
	disks := l.disks
	l.mu.Unlock()
	if repair && report.RepairedBlocks > 0 && l.syncDisks(disks) {
		return report, l.tellSupers()
	}
	return report, nil
}

// pinWritten pins the i-th segment and says how many columns of it are on the
// disks; nil if there is none, or nothing useful in it. After a power cut one that
// was released and not yet used again may hold anything.
func (l *Log) pinWritten(i int) (*segment, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i >= len(l.segments) || l.segments[i] == nil {
		return nil, 0
	}
	s := l.segments[i]
	if s.live == 0 && s.meta == 0 {
		return nil, 0
	}
	columns := s.columns
	for _, r := range s.rows {
		columns = min(columns, int(r.header.Column))
	}
	if columns == 0 {
		return nil, 0
	}
	s.readers.Add(1)
	return s, columns
}

// eachRow calls f with the rows in the first columns of a pinned segment. It
// compares the first header with all disks, and if careful each.
func (l *Log) eachRow(s *segment, columns int, careful bool, f func(*foundRow) error) error {
	number := format.RowNumber(0)
	for column := 0; column < columns; {
		row := l.readSealedRow(s, column, number, careful || column == 0)
		if row == nil {
			return fmt.Errorf("segment %d has no row at column %d", s.id, column)
		}
		if err := f(row); err != nil {
			return err
		}
		number, column = row.header.Number+1, column+int(row.header.Columns)
	}
	return nil
}

func (l *Log) scrubRow(f *foundRow, repair bool, report *ScrubReport) error {
	report.Rows++
	w, err := l.readWhole(f)
	if err != nil {
		return err
	}
	defer w.release()
	for shard := range w.shards {
		d, off := l.sourceOf(f.segment, shard, int(f.header.Column))
		if d == nil {
			continue // missing: a rebuild makes it
		}
		report.Blocks += int64(f.header.Columns)
		wrong := w.wrongIn(shard)
		if wrong == 0 {
			continue
		}
		report.WrongBlocks += int64(wrong)
		d.corrupt.Add(int64(wrong))
		l.event(d.name, "disk %s has %d wrong blocks in segment %d", d.name, wrong, f.segment.id)
		if repair && w.writeShard(d, shard, off) {
			report.RepairedBlocks += int64(wrong)
		}
	}
	return nil
}

// wholeRow is a row as it should be, next to what the disks have.
type wholeRow struct {
	log    *Log
	row    *row
	shards [][][]byte // as it should be, a block for each column
	was    [][]byte   // as it was read; nil if it was not
	buffer []byte
	pages  []*page
	late   bool // it is still being written
}

// writeShard writes one of the shards to a disk, which is out if it fails.
func (w *wholeRow) writeShard(d *disk, shard int, off int64) (done bool) {
	done, late := w.log.writeTo(d, w.shards[shard], off)
	w.late = w.late || late
	return done
}

func (w *wholeRow) release() {
	w.log.putAll(w.was)
	if w.late {
		return
	}
	w.log.buffers.put(w.buffer)
	w.log.pages.put(w.pages)
}

// wrongIn counts blocks of a shard that are not what they should be: all of one
// that could not be read.
func (w *wholeRow) wrongIn(shard int) (wrong int) {
	if w.was[shard] == nil {
		return len(w.shards[shard])
	}
	for i, b := range w.shards[shard] {
		if string(w.was[shard][i*format.BlockBytes:(i+1)*format.BlockBytes]) != string(b) {
			wrong++
		}
	}
	return wrong
}

// readWhole reads all of a row that can be read, and makes it whole. The caller
// releases it.
func (l *Log) readWhole(f *foundRow) (*wholeRow, error) {
	w := &wholeRow{log: l, was: make([][]byte, l.geometry.Shards())}
	w.row = &row{header: f.header, headerBlocks: f.headerBlocks, segment: f.segment, pages: make([]*page, len(f.header.Sums))}
	l.pages.get(w.row.pages)
	w.pages = w.row.pages
	var present []int
	for shard := range w.was {
		if d, _ := l.sourceOf(f.segment, shard, int(f.header.Column)); d != nil {
			present = append(present, shard)
		}
	}
	l.readShards(f.segment, present, int(f.header.Column), int(f.header.Columns), w.was, true)
	for shard, b := range w.was {
		if len(b) == 0 {
			w.was[shard] = nil
		}
	}
	if err := w.fill(f); err != nil {
		w.release()
		return nil, err
	}
	w.shards, w.buffer = l.shardsOf(w.row)
	if err := l.code.encodeColumns(w.shards); err != nil {
		w.release()
		return nil, err
	}
	return w, nil
}

// fill takes each stored block from what was read, or reconstructs it.
func (w *wholeRow) fill(f *foundRow) error {
	for i, p := range w.pages {
		p.sum = f.header.Sums[i]
		shard, column := f.slot(f.headerBlocks + i)
		if b := w.was[shard]; b != nil {
			at := (column - int(f.header.Column)) * format.BlockBytes
			copy(p.data, b[at:at+format.BlockBytes])
			if checksum(p.data) == p.sum {
				continue
			}
		}
		one := &run{f.segment, shard, column, []format.Entry{format.NewEntry(0, p.sum)}, [][]byte{p.data}, source{}}
		if err := w.log.reconstruct(one); err != nil {
			return fmt.Errorf("row %d: %w", f.header.Number, err)
		}
	}
	return nil
}
