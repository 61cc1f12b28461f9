package format

import (
	"errors"
	"slices"
	"testing"
)

// wrong is a change to a good value that makes it one to refuse.
type wrong[T any] struct {
	name   string
	change func(v *T)
}

// refuse checks that Validate refuses each, and Encode panics.
func refuse[T any](t *testing.T, good func() *T, validate func(*T) error, encode func(*T), tests []wrong[T]) {
	t.Helper()
	if err := validate(good()); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	for _, test := range tests {
		v := good()
		test.change(v)
		if err := validate(v); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", test.name, err)
		}
		if encode != nil && !panics(func() { encode(v) }) {
			t.Errorf("%s: encoded", test.name)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return
}

func goodSuper() *Super {
	s := *goldenSuper
	s.Disks, s.Root.Index, s.Root.Segments = slices.Clone(s.Disks), slices.Clone(s.Root.Index), slices.Clone(s.Root.Segments)
	return &s
}

func goodRow() *Row {
	r := *goldenRow
	r.Extents, r.Sums, r.NextShards = slices.Clone(r.Extents), slices.Clone(r.Sums), slices.Clone(r.NextShards)
	return &r
}

func goodRecord() *Record {
	r := *goldenRecord
	r.Extents, r.Sums = slices.Clone(r.Extents), slices.Clone(r.Sums)
	return &r
}

func goodManifest() *Manifest {
	m := *goldenManifest
	m.Layers, m.Segments = slices.Clone(m.Layers), slices.Clone(m.Segments)
	m.Layers[0].Leaves = slices.Clone(m.Layers[0].Leaves)
	return &m
}

func TestSuperValidate(t *testing.T) {
	refuse(t, goodSuper, (*Super).Validate, func(s *Super) { s.Encode() }, []wrong[Super]{
		{"no data shards", func(s *Super) { s.Geometry.DataShards = 0 }},
		{"many shards", func(s *Super) { s.Geometry.ParityShards = MaxShards }},
		{"odd shard", func(s *Super) { s.Geometry.ShardBytes++ }},
		{"large stripe", func(s *Super) { s.Geometry.StripeBytes = 3 << 20 }},
		{"odd journal", func(s *Super) { s.Geometry.JournalBytes = 4096 }},
		{"fewer disks than shards", func(s *Super) { s.Disks = s.Disks[:2] }},
		{"many disks", func(s *Super) { s.Disks = make([]DiskRecord, MaxDisks+1) }},
		{"disk twice", func(s *Super) { s.Disks[0].ID = s.Disks[2].ID }},
		{"disk of another log", func(s *Super) { s.Disk[0] = 'z' }},
		{"state of a disk", func(s *Super) { s.Disks[1].State = DiskFilling + 1 }},
		{"manifest without a row", func(s *Super) { s.Root.Row = 0 }},
		{"row without a manifest", func(s *Super) { s.Root = Root{Row: 1, Segments: s.Root.Segments} }},
		{"manifest in no segment", func(s *Super) { s.Root.Segments = nil }},
		{"segments of no manifest", func(s *Super) { s.Root = Root{Segments: s.Root.Segments} }},
		{"segment twice", func(s *Super) { s.Root.Segments = append(s.Root.Segments, s.Root.Segments[0]) }},
		{"many segments", func(s *Super) {
			for i := range SegmentID(MaxRootSegments) {
				s.Root.Segments = append(s.Root.Segments, PlaceRecord{ID: 10 + i, Shards: goldenSuper.Root.Segments[0].Shards})
			}
		}},
		{"segment with a shard too few", func(s *Super) { s.Root.Segments[0].Shards = s.Root.Segments[0].Shards[1:] }},
		{"slot that is not there", func(s *Super) { s.Root.Segments[0].Shards = []ShardRecord{{Disk: 0, Slot: 100}, {Disk: 1}, {Disk: 2}} }},
		{"long manifest", func(s *Super) { s.Root.ManifestBytes = MaxManifestBytes + 1 }},
		{"very long manifest", func(s *Super) { s.Root.ManifestBytes = 1<<64 - 1 }},
		{"index too short", func(s *Super) { s.Root.Index = s.Root.Index[:1] }},
		{"index block nowhere", func(s *Super) { s.Root.Index[1] = Hole }},
	})
	longest := goodSuper()
	longest.Root.ManifestBytes, longest.Root.Index = MaxManifestBytes, newExamples(1).entries(MaxRootIndex)
	if err := longest.Validate(); err != nil {
		t.Errorf("longest manifest: %v", err)
	}
}

func TestRowValidate(t *testing.T) {
	refuse(t, goodRow, (*Row).Validate, func(r *Row) { encoded(r) }, []wrong[Row]{
		{"number 0", func(r *Row) { r.Number, r.Durable = 0, 0 }},
		{"durable itself", func(r *Row) { r.Durable = r.Number }},
		{"stream", func(r *Row) { r.Stream = StreamCount }},
		{"no segment", func(r *Row) { r.Segment = NoSegment }},
		{"next is the same", func(r *Row) { r.Next = r.Segment }},
		{"no columns", func(r *Row) { r.Columns = 0 }},
		{"column beyond", func(r *Row) { r.Column = maxColumns - r.Columns + 1 }},
		{"columns overflow", func(r *Row) { r.Column, r.Columns = 1<<32-8, 16 }},
		{"shards without next", func(r *Row) { r.Next = NoSegment }},
		{"next without shards", func(r *Row) { r.NextShards = nil }},
		{"many shards", func(r *Row) { r.NextShards = newExamples(1).shards(MaxShards + 1) }},
		{"two shards on a disk", func(r *Row) { r.NextShards[1] = ShardRecord{Disk: 2, Slot: 1} }},
		{"shard on disk 64", func(r *Row) { r.NextShards[1].Disk = MaxDisks }},
		{"kind 0", func(r *Row) { r.Extents[1].Kind = 0 }},
		{"kind 6", func(r *Row) { r.Extents[0].Kind = KindIndex + 1 }},
		{"data without layer", func(r *Row) { r.Extents[0].Layer = 0 }},
		{"manifest in a layer", func(r *Row) { r.Extents[3].Layer = 1 }},
		{"empty extent", func(r *Row) { r.Extents[1].Count = 0 }},
		{"extent beyond", func(r *Row) { r.Extents[0].Start++ }},
		{"leaf beyond", func(r *Row) { r.Extents[2].Start = maxLeaves }},
		{"start overflows", func(r *Row) { r.Extents[1].Start = 1<<64 - 1 }},
		{"sum too many", func(r *Row) { r.Sums = append(r.Sums, 1) }},
		{"sum too few", func(r *Row) { r.Sums = r.Sums[1:] }},
	})
	if r := goodRow(); !panics(func() { r.EncodeTo(make([]byte, 2*BlockBytes)) }) || !panics(func() { r.EncodeTo(nil) }) {
		t.Error("encoded to a buffer of another length")
	}
}

func TestRecordValidate(t *testing.T) {
	refuse(t, goodRecord, (*Record).Validate, func(r *Record) { encoded(r) }, []wrong[Record]{
		{"backwards", func(r *Record) { r.Through = r.After - 1 }},
		{"leaf", func(r *Record) { r.Extents[0].Kind = KindLeaf }},
		{"extent beyond", func(r *Record) { r.Extents[0].Start = uint64(MaxBlock) }},
		{"sum too many", func(r *Record) { r.Sums = append(r.Sums, 1) }},
	})
}

func TestManifestValidate(t *testing.T) {
	refuse(t, goodManifest, (*Manifest).Validate, func(m *Manifest) { m.Encode() }, []wrong[Manifest]{
		{"layer 0", func(m *Manifest) { m.Layers[0].ID = 0 }},
		{"layer of the future", func(m *Manifest) { m.NextLayer = 299 }},
		{"layer twice", func(m *Manifest) { m.Layers[0].ID = 2 }},
		{"parent is younger", func(m *Manifest) { m.Layers[0].Parent = 299 }},
		{"parent is gone", func(m *Manifest) { m.Layers[3].Parent = 7 }},
		{"parent is merged", func(m *Manifest) { m.Layers[3].Parent = 3 }},
		{"merged and more", func(m *Manifest) { m.Layers[2].SizeBlocks = 1 }},
		{"merged into itself", func(m *Manifest) { m.Layers[2].MergedInto = 3 }},
		{"merged in a circle", func(m *Manifest) { m.Layers[3] = LayerRecord{ID: 299, MergedInto: 3} }},
		{"large layer", func(m *Manifest) { m.Layers[0].SizeBlocks++ }},
		{"volume and snapshot", func(m *Manifest) { m.Layers[0].Volume = "x" }},
		{"snapshot of nothing", func(m *Manifest) { m.Layers[0].Of = "" }},
		{"volume twice", func(m *Manifest) { m.Layers[2] = LayerRecord{ID: 3, Volume: "home"} }},
		{"long name", func(m *Manifest) { m.Layers[3].Volume = string(make([]byte, MaxNameBytes+1)) }},
		{"leaf twice", func(m *Manifest) { m.Layers[0].Leaves[1].Index = 0 }},
		{"leaf beyond", func(m *Manifest) { m.Layers[0].Leaves[2].Index++ }},
		{"leaf nowhere", func(m *Manifest) { m.Layers[0].Leaves[1].At = Unmapped }},
		{"segments out of order", func(m *Manifest) { m.Segments[1].ID = 0 }},
		{"no segment", func(m *Manifest) { m.Segments[1].ID = NoSegment }},
		{"stream", func(m *Manifest) { m.Segments[0].Stream = StreamCount }},
		{"columns", func(m *Manifest) { m.Segments[0].Columns = maxColumns + 1 }},
		{"more live than there is", func(m *Manifest) { m.Segments[0].Live = 256*MaxShards + 1 }},
		{"segment without shards", func(m *Manifest) { m.Segments[0].Shards = nil }},
		{"column of no segment", func(m *Manifest) { m.Streams[Cold].Column = 1 }},
		{"next is the same", func(m *Manifest) { m.Streams[Meta].Next = 9 }},
		{"next without shards", func(m *Manifest) { m.Streams[Meta].NextShards = nil }},
	})
}

func TestFits(t *testing.T) {
	g := goldenSuper.Geometry // 256 columns, 2+1
	refuse(t, goodRow, func(r *Row) error { return r.Fits(g) }, nil, []wrong[Row]{
		{"beyond the segment", func(r *Row) { r.Column = 249 }},
		{"more blocks than slots", func(r *Row) { r.Columns = 3 }},
		{"shards of another layout", func(r *Row) { r.NextShards = r.NextShards[1:] }},
		{"segment without locations", func(r *Row) { r.Segment = SegmentID(MaxLocation / 512) }},
	})
	refuse(t, goodRecord, func(r *Record) error { return r.Fits(g) }, nil, []wrong[Record]{
		{"longer than the journal", func(r *Record) { r.Sums = make([]uint32, 3<<20/BlockBytes) }},
	})
	fits := func(m *Manifest) error {
		s := goodSuper()
		for i := range s.Disks {
			s.Disks[i].Slots = 1<<32 - 1
		}
		return m.Fits(s)
	}
	refuse(t, goodManifest, fits, nil, []wrong[Manifest]{
		{"columns", func(m *Manifest) { m.Segments[0].Columns = 257 }},
		{"live in parity", func(m *Manifest) { m.Segments[0].Live = 513 }},
		{"shards of another layout", func(m *Manifest) { m.Segments[0].Shards = goldenShards[:2] }},
		{"column of a stream", func(m *Manifest) { m.Streams[Meta].Column = 257 }},
		{"slot that is not there", func(m *Manifest) { m.Streams[Meta].NextShards = []ShardRecord{{Slot: 1<<32 - 1}, {Disk: 1}, {Disk: 2}} }},
		{"disk that is not there", func(m *Manifest) { m.Segments[1].Shards = []ShardRecord{{Disk: 0}, {Disk: 1}, {Disk: 3}} }},
	})
}

// TestHeaderOf255Blocks is what the lengths of extents were chosen for.
func TestHeaderOf255Blocks(t *testing.T) {
	if n := newExamples(1).random255().HeaderBlocks(); n != 2 {
		t.Errorf("header of %d blocks", n)
	}
}

func TestEncodeToAllocatesNothing(t *testing.T) {
	row, record := newExamples(1).random255(), newExamples(2).record()
	rowBytes, recordBytes := make([]byte, row.HeaderBlocks()*BlockBytes), make([]byte, record.HeaderBlocks()*BlockBytes)
	if n := testing.AllocsPerRun(10, func() { row.EncodeTo(rowBytes); record.EncodeTo(recordBytes) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPrefixNeedsOneBlock also has blocks behind the header, which are not looked at.
func TestPrefixNeedsOneBlock(t *testing.T) {
	row, record := newExamples(1).random255(), newExamples(2).record()
	b := append(encoded(row), dirty(3)...)
	if p, err := DecodeRowPrefix(b[:BlockBytes]); err != nil || p != row.Prefix() {
		t.Errorf("row: %+v, %v", p, err)
	}
	if r, err := DecodeRow(b); err != nil || r.Prefix() != row.Prefix() {
		t.Errorf("row with more behind it: %v", err)
	}
	b = append(encoded(record), dirty(3)...)
	if p, err := DecodeRecordPrefix(b[:BlockBytes]); err != nil || p != record.Prefix() {
		t.Errorf("record: %+v, %v", p, err)
	}
	if r, err := DecodeRecord(b); err != nil || r.Prefix() != record.Prefix() {
		t.Errorf("record with more behind it: %v", err)
	}
}
