package format

import (
	"fmt"
	"math/rand/v2"
)

// examples makes random values within the limits of their types.
type examples struct{ *rand.Rand }

func newExamples(seed uint64) examples { return examples{rand.New(rand.NewPCG(seed, 0))} }

func (x examples) id() (id [16]byte) {
	for i := range id {
		id[i] = byte(x.Uint32())
	}
	return id
}

func (x examples) entry() Entry {
	return NewEntry(1+Location(x.Uint64N(uint64(MaxLocation-1))), x.Uint32())
}

func (x examples) entries(n int) (entries []Entry) {
	for range n {
		entries = append(entries, x.entry())
	}
	return entries
}

func (x examples) super() *Super {
	s := &Super{Log: x.id(), Generation: Generation(x.Uint64()), Epoch: Epoch(x.Uint64()), Geometry: Geometry{
		DataShards: 1 + x.IntN(8), ParityShards: x.IntN(4), ShardBytes: 1 << 20, StripeBytes: 1 << 19, JournalBytes: int64(x.IntN(8)) << 20,
	}}
	for range s.Geometry.Shards() + x.IntN(MaxDisks-s.Geometry.Shards()+1) {
		s.Disks = append(s.Disks, DiskRecord{ID: x.id(), State: DiskState(x.IntN(3)), Slots: 1 + x.Uint32N(1<<31)})
	}
	s.Disk = s.Disks[x.IntN(len(s.Disks))].ID
	if x.IntN(4) > 0 {
		s.Root = Root{Row: 1 + RowNumber(x.Uint64N(1<<50)), ManifestBytes: 1 + x.Uint64N(MaxManifestBytes)}
		s.Root.Index = x.entries(IndexBlocks(s.Root.ManifestBytes))
		for range 1 + x.IntN(MaxRootSegments) {
			s.Root.Segments = append(s.Root.Segments, PlaceRecord{ID: SegmentID(x.IntN(1 << 16)), Shards: x.shardsOn(s)})
		}
	}
	return s
}

// shardsOn are on disks of a log.
func (x examples) shardsOn(s *Super) (shards []ShardRecord) {
	for _, disk := range x.Perm(len(s.Disks))[:s.Geometry.Shards()] {
		shards = append(shards, ShardRecord{Disk: uint8(disk), Slot: x.Uint32N(s.Disks[disk].Slots), Stale: x.IntN(4) == 0})
	}
	return shards
}

// shards are on different disks; one or the other is missing.
func (x examples) shards(n int) (shards []ShardRecord) {
	for _, disk := range x.Perm(MaxDisks)[:n] {
		s := ShardRecord{Disk: uint8(disk), Slot: x.Uint32(), Stale: x.IntN(4) == 0}
		if x.IntN(8) == 0 {
			s = ShardRecord{Disk: NoDisk}
		}
		shards = append(shards, s)
	}
	return shards
}

// extents come with their checksums.
func (x examples) extents(n int, kinds ...ExtentKind) (extents []Extent, sums []uint32) {
	for range n {
		e := Extent{Kind: kinds[x.IntN(len(kinds))], Layer: 1 + LayerID(x.Uint32N(1<<32-2)), Count: 1 + x.Uint32N(4)}
		limit := uint64(MaxBlock)
		switch e.Kind {
		case KindHole:
			e.Count = 1 + x.Uint32N(1<<32-2)
		case KindLeaf:
			limit /= LeafEntries
		case KindManifest, KindIndex:
			e.Layer = 0
		}
		e.Start = x.Uint64N(limit - uint64(e.Count) + 1)
		extents = append(extents, e)
		for range e.Stored() {
			sums = append(sums, x.Uint32())
		}
	}
	return extents, sums
}

func (x examples) row() *Row {
	r := &Row{Log: x.id(), Epoch: Epoch(x.Uint64()), Number: 1 + RowNumber(x.Uint64N(1<<50)), Stream: Stream(x.IntN(StreamCount)),
		Segment: SegmentID(x.Uint32N(1 << 31)), Column: x.Uint32N(1000), Columns: 1 + x.Uint32N(1000), Next: NoSegment, Sequence: Sequence(x.Uint64())}
	r.Durable = RowNumber(x.Uint64N(uint64(r.Number)))
	if x.IntN(4) > 0 {
		r.Next, r.NextShards = 1<<31+SegmentID(x.Uint32N(1<<30)), x.shards(1+x.IntN(MaxShards))
	}
	r.Extents, r.Sums = x.extents(x.IntN(300), KindData, KindHole, KindLeaf, KindManifest, KindIndex)
	return r
}

func (x examples) record() *Record {
	r := &Record{Log: x.id(), Epoch: Epoch(x.Uint64()), After: Sequence(x.Uint64N(1 << 62))}
	r.Through = r.After + Sequence(x.Uint64N(1<<60))
	r.Extents, r.Sums = x.extents(x.IntN(300), KindData, KindHole)
	return r
}

func (x examples) leaf() *[LeafEntries]Entry {
	var leaf [LeafEntries]Entry
	for i := range leaf {
		switch x.IntN(4) {
		case 0:
		case 1:
			leaf[i] = Hole
		default:
			leaf[i] = x.entry()
		}
	}
	return &leaf
}

// random255 is a row as a busy client makes it: blocks here and there.
func (x examples) random255() *Row {
	r := x.row()
	r.Segment, r.Next, r.NextShards = 3, 4, x.shards(6)
	r.Extents, r.Sums = nil, nil
	for range 255 {
		r.Extents = append(r.Extents, Extent{Kind: KindData, Layer: 7, Start: x.Uint64N(1 << 28), Count: 1})
		r.Sums = append(r.Sums, x.Uint32())
	}
	return r
}

// manifest has layers of all kinds, in no order.
func (x examples) manifest() *Manifest {
	m := &Manifest{Row: RowNumber(x.Uint64()), Sequence: Sequence(x.Uint64()), NextLayer: 2 + LayerID(x.Uint32N(1<<32-2)),
		Counters: Counters{x.Uint64(), x.Uint64(), x.Uint64(), x.Uint64(), x.Uint64(), x.Uint64()}}
	for range x.IntN(4) {
		m.Disks = append(m.Disks, x.id())
	}
	id, parent := LayerID(0), LayerID(0)
	for range x.IntN(8) {
		if id+1 >= m.NextLayer {
			break
		}
		id += 1 + LayerID(x.Uint32N(uint32(min(m.NextLayer-id-1, 1<<28))))
		l := x.layer(id, parent, m.NextLayer)
		m.Layers = append(m.Layers, l)
		if l.MergedInto == 0 {
			parent = id
		}
	}
	x.Shuffle(len(m.Layers), func(i, j int) { m.Layers[i], m.Layers[j] = m.Layers[j], m.Layers[i] })
	shards, next := 1+x.IntN(MaxShards), SegmentID(0)
	for range x.IntN(50) {
		s := SegmentRecord{ID: next + SegmentID(x.Uint32N(1<<uint(x.IntN(24)))), Stream: Stream(x.IntN(StreamCount)), Sealed: x.IntN(2) == 0,
			Columns: x.Uint32N(maxColumns + 1), Written: WriteTime(x.Uint64()), SealedAt: WriteTime(x.Uint64()), Shards: x.shards(shards)}
		s.Live = x.Uint32N(s.Columns*MaxShards + 1)
		m.Segments = append(m.Segments, s)
		next = s.ID + 1
	}
	for range x.IntN(3) {
		m.Younger = append(m.Younger, PlaceRecord{ID: SegmentID(x.Uint32N(1 << 22)), Shards: x.shards(shards)})
	}
	for i := range m.Streams {
		m.Streams[i] = StreamRecord{Segment: NoSegment, Next: NoSegment}
		if x.IntN(4) > 0 {
			m.Streams[i] = StreamRecord{Segment: SegmentID(x.Uint32N(1 << 31)), Column: x.Uint32N(maxColumns), Next: 1<<31 + SegmentID(x.Uint32N(1<<31-1)), NextShards: x.shards(shards)}
		}
	}
	return m
}

func (x examples) layer(id, parent, next LayerID) LayerRecord {
	if into := next - 1; x.IntN(4) == 0 && into > id {
		return LayerRecord{ID: id, MergedInto: into}
	}
	l := LayerRecord{ID: id, Parent: parent, SizeBlocks: x.Uint64N(uint64(MaxBlock) + 1), CreatedUnixNS: int64(x.Uint64()), Removed: x.IntN(4) == 0}
	switch x.IntN(3) {
	case 0:
		l.Volume = fmt.Sprintf("volume-%d", id)
	case 1:
		l.Snapshot, l.Of = fmt.Sprintf("snapshot-%d", id), "home"
	}
	index := uint64(0)
	for range x.IntN(40) {
		index += 1 + x.Uint64N(1<<uint(x.IntN(25)))
		l.Leaves = append(l.Leaves, LeafRecord{Index: LeafIndex(index), At: x.entry()})
	}
	return l
}

// terabyte is the manifest of a full log of 1 TB: 4+2, segments of 64 MiB, every leaf
// written. Checkpoints write neighbouring leaves together, so most locations are near the one before.
func (x examples) terabyte() *Manifest {
	const segments, leaves = 16000, 1 << 19
	m := &Manifest{Row: 1 << 30, Sequence: 1 << 40, NextLayer: 2}
	for i := range m.Streams {
		m.Streams[i] = StreamRecord{Segment: SegmentID(i), Column: 17, Next: SegmentID(segments + i), NextShards: x.shards(6)}
	}
	for i := range segments {
		columns := uint32(4096)
		m.Segments = append(m.Segments, SegmentRecord{ID: SegmentID(i), Sealed: true, Columns: columns, Live: x.Uint32N(columns * 4),
			Written: WriteTime(x.Uint64N(1 << 40)), SealedAt: WriteTime(x.Uint64N(1 << 40)), Shards: x.shards(6)})
		for s := range m.Segments[i].Shards {
			m.Segments[i].Shards[s].Slot = x.Uint32N(20000)
		}
	}
	l := LayerRecord{ID: 1, SizeBlocks: leaves * LeafEntries, Volume: "home", Leaves: make([]LeafRecord, leaves)}
	at := Location(1)
	for i := range l.Leaves {
		if at++; x.IntN(4) == 0 {
			at = 1 + Location(x.Uint64N(1<<28))
		}
		l.Leaves[i] = LeafRecord{Index: LeafIndex(i), At: NewEntry(at, x.Uint32())}
	}
	m.Layers = []LayerRecord{l}
	return m
}
