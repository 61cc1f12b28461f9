package logvolume

import "torpor/block/logvolume/format"

// foundRow is a row that was found on the disks.
type foundRow struct {
	header       format.Row
	headerBlocks int
	segment      *segment

	// What place did, to take it back.
	before        stream
	columnsBefore int
	next          *segment
}

// at is the location of the i-th stored block.
func (f *foundRow) at(g format.Geometry, i int) format.Location {
	shard, column := f.slot(f.headerBlocks + i)
	return g.At(f.segment.id, shard, column)
}

// entry is what the map says of the i-th stored block if it is useful.
func (f *foundRow) entry(g format.Geometry, i int) format.Entry {
	return format.NewEntry(f.at(g, i), f.header.Sums[i])
}

func (f *foundRow) slot(slot int) (shard, column int) {
	columns := int(f.header.Columns)
	return slot / columns, int(f.header.Column) + slot%columns
}

// findRow looks for the next row of a stream: behind the last one, else at the
// beginning of the next segment. Rows older than a number are not looked for.
func (l *Log) findRow(stream format.Stream, number format.RowNumber) *foundRow {
	st := l.streams[stream]
	if st.open != nil && st.open.columns < l.geometry.Columns() {
		if f := l.readRowAt(st.open, st.open.columns, number); f != nil {
			return f
		}
	}
	if st.next != nil {
		return l.readRowAt(st.next, 0, number)
	}
	return nil
}

// readRowAt reads a row's header, nil if there is none of this epoch and stream,
// numbered from number on.
func (l *Log) readRowAt(s *segment, column int, number format.RowNumber) *foundRow {
	var found *foundRow
	l.eachVersion(s, 0, column, func(first []byte) bool {
		p, err := format.DecodeRowPrefix(first)
		if err != nil || p.Log != l.id || p.Epoch != l.epoch || p.Segment != s.id || p.Stream != s.stream || int(p.Column) != column ||
			p.Number < number || p.Fits(l.geometry) != nil {
			return false
		}
		found = l.readHeader(s, p, first)
		return found != nil
	})
	return found
}

// readSealedRow reads the header of a row of a segment, of any epoch, numbered
// from number on; nil if there is none. A disk that lost a write may have the
// header of an older row there, from a former use of the segment. The number of the
// row before excludes it; if careful, so does a comparison with the other disks.
func (l *Log) readSealedRow(s *segment, column int, number format.RowNumber, careful bool) *foundRow {
	var newest *foundRow
	versions := l.eachVersion
	if careful {
		versions = l.allVersions
	}
	versions(s, 0, column, func(first []byte) bool {
		p, err := format.DecodeRowPrefix(first)
		if err != nil || p.Log != l.id || p.Segment != s.id || int(p.Column) != column || p.Number < number || p.Fits(l.geometry) != nil {
			return false
		}
		f := l.readHeader(s, p, first)
		if f != nil && (newest == nil || olderRow(newest, f)) {
			newest = f
		}
		return newest != nil && !careful
	})
	return newest
}

func olderRow(f, than *foundRow) bool {
	return f.header.Epoch < than.header.Epoch || f.header.Epoch == than.header.Epoch && f.header.Number < than.header.Number
}

// readHeader reads the rest of a header.
func (l *Log) readHeader(s *segment, p format.RowPrefix, first []byte) *foundRow {
	f := &foundRow{headerBlocks: p.HeaderBlocks, segment: s, header: format.Row{Column: p.Column, Columns: p.Columns}}
	b := make([]byte, p.HeaderBlocks*format.BlockBytes)
	copy(b, first)
	var fill func(i int) bool
	fill = func(i int) bool {
		if i == p.HeaderBlocks {
			h, err := format.DecodeRow(b)
			if err != nil || h.Fits(l.geometry) != nil {
				return false
			}
			f.header = *h
			return true
		}
		shard, column := f.slot(i)
		return l.eachVersion(s, shard, column, func(version []byte) bool {
			copy(b[i*format.BlockBytes:], version)
			return fill(i + 1)
		})
	}
	if !fill(1) {
		return nil
	}
	return f
}

// eachVersion calls try with what a block may be: what its disk has, and then what
// each choice of other shards makes of it; until try returns true.
func (l *Log) eachVersion(s *segment, shard, column int, try func([]byte) bool) bool {
	all := make([][]byte, l.geometry.Shards())
	l.readShards(s, []int{shard}, column, 1, all, true)
	defer func() { l.putAll(all) }()
	if len(all[shard]) > 0 && try(all[shard]) {
		return true
	}
	l.readOther(s, shard, column, all)
	return l.eachMade(all, shard, try)
}

// allVersions is eachVersion that reads all disks, and calls try once if all of
// them agree: then that is right, unless more than may be are wrong.
func (l *Log) allVersions(s *segment, shard, column int, try func([]byte) bool) bool {
	all := make([][]byte, l.geometry.Shards())
	l.readShards(s, []int{shard}, column, 1, all, true)
	l.readOther(s, shard, column, all)
	defer func() { l.putAll(all) }()
	if len(all[shard]) > 0 && (try(all[shard]) || l.code.consistent(all)) {
		return true
	}
	return l.eachMade(all, shard, try)
}

// readOther reads a column of all shards but one.
func (l *Log) readOther(s *segment, except, column int, all [][]byte) {
	var others []int
	for other := range all {
		if other != except {
			others = append(others, other)
		}
	}
	l.readShards(s, others, column, 1, all, true)
}

// eachMade calls try with what each choice of other shards makes of one.
func (l *Log) eachMade(all [][]byte, shard int, try func([]byte) bool) bool {
	var have []int
	for other := range all {
		if other != shard && len(all[other]) > 0 {
			have = append(have, other)
		}
	}
	wanted := make([]bool, len(all))
	wanted[shard] = true
	for chosen := range choices(have, l.geometry.DataShards) {
		sources := make([][]byte, len(all))
		for _, other := range chosen {
			sources[other] = all[other]
		}
		if l.code.reconstruct(sources, wanted) == nil && try(sources[shard]) {
			return true
		}
	}
	return false
}

// verifyRow reads a whole row that may not have been written to all disks. If it
// is whole by what there is, it is made so on all disks.
func (l *Log) verifyRow(f *foundRow) (whole bool) {
	w, err := l.readWhole(f)
	if err != nil {
		return false
	}
	defer w.release()
	for shard := range w.shards {
		if w.wrongIn(shard) == 0 {
			continue
		}
		if d, off := l.sourceOf(f.segment, shard, int(f.header.Column)); d != nil {
			// A disk that can not take it is out, and the segment degraded.
			w.writeShard(d, shard, off)
		}
	}
	return true
}
