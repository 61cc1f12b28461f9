package format

import (
	"encoding/binary"
	"fmt"
	"math"
)

// manifestLayout is that of a manifest: a header of fixed length, then streams,
// segments and layers, made of varints.
var manifestLayout = layout{name: "manifest", magic: "torporLM", version: 1}

const (
	manifestRowAt          = 24
	manifestSequenceAt     = 32
	manifestCountersAt     = 40
	manifestNextLayerAt    = 88
	manifestLayerCountAt   = 92
	manifestSegmentCountAt = 96
	manifestShardCountAt   = 100
	manifestDiskCountAt    = 104
	manifestYoungerCountAt = 108
	manifestZerosAt        = 112
	manifestHeaderBytes    = 128
	manifestDiskBytes      = 16
)

// Least lengths, which bound what a decoder allocates.
const (
	minShardBytes   = 2  // disk, slot and stale
	minSegmentBytes = 9  // ID, stream, columns, live, written, sealed, number of shards, a shard
	minLayerBytes   = 3  // flags, ID, merged into
	minLeafBytes    = 6  // index, location, checksum
	leafBytes       = 12 // as many take
)

// Flags of layers, and of segments above the stream.
const (
	layerRemoved  = 1
	layerMerged   = 2
	segmentSealed = 0x80
)

func (c *Counters) fields() [6]*uint64 {
	return [6]*uint64{&c.UserWritten, &c.HotWritten, &c.ColdWritten, &c.MetaWritten, &c.JournalWritten, &c.ParityWritten}
}

// Encode returns the manifest. It panics if Validate has something against it,
// or if it is longer than MaxManifestBytes.
func (m *Manifest) Encode() []byte {
	manifestLayout.must(m.Validate())
	shards := 0
	for _, s := range m.Segments {
		shards += len(s.Shards)
	}
	for _, s := range m.Streams {
		shards += len(s.NextShards)
	}
	for _, s := range m.Younger {
		shards += len(s.Shards)
	}
	b := make([]byte, manifestHeaderBytes, m.likelyBytes(shards))
	binary.LittleEndian.PutUint64(b[manifestRowAt:], uint64(m.Row))
	binary.LittleEndian.PutUint64(b[manifestSequenceAt:], uint64(m.Sequence))
	for i, counter := range m.Counters.fields() {
		binary.LittleEndian.PutUint64(b[manifestCountersAt+i*8:], *counter)
	}
	binary.LittleEndian.PutUint32(b[manifestNextLayerAt:], uint32(m.NextLayer))
	binary.LittleEndian.PutUint32(b[manifestLayerCountAt:], uint32(len(m.Layers)))
	binary.LittleEndian.PutUint32(b[manifestSegmentCountAt:], uint32(len(m.Segments)))
	binary.LittleEndian.PutUint32(b[manifestShardCountAt:], uint32(shards))
	binary.LittleEndian.PutUint32(b[manifestDiskCountAt:], uint32(len(m.Disks)))
	for _, id := range m.Disks {
		b = append(b, id[:]...)
	}
	for i := range m.Streams {
		b = m.Streams[i].append(b)
	}
	binary.LittleEndian.PutUint32(b[manifestYoungerCountAt:], uint32(len(m.Younger)))
	for _, place := range m.Younger {
		b = appendShards(binary.AppendUvarint(b, uint64(place.ID)), place.Shards)
	}
	next := SegmentID(0)
	for i := range m.Segments {
		b = m.Segments[i].append(b, next)
		next = m.Segments[i].ID + 1
	}
	for i := range m.Layers {
		b = m.Layers[i].append(b)
	}
	if len(b) > MaxManifestBytes {
		panic(fmt.Sprintf("encode manifest of %d bytes", len(b)))
	}
	manifestLayout.begin(b, len(b))
	manifestLayout.finish(b)
	return b
}

// likelyBytes is the length of most manifests, or somewhat more.
func (m *Manifest) likelyBytes(shards int) int {
	n := manifestHeaderBytes + len(m.Disks)*manifestDiskBytes + len(m.Segments)*16 + shards*4
	for i := range m.Layers {
		n += 64 + len(m.Layers[i].Leaves)*leafBytes
	}
	return n
}

// append writes NoSegment as 0, other segments as one more.
func (s *StreamRecord) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.Segment+1))
	b = binary.AppendUvarint(b, uint64(s.Column))
	b = binary.AppendUvarint(b, uint64(s.Next+1))
	return appendShards(b, s.NextShards)
}

func appendShards(b []byte, shards []ShardRecord) []byte {
	b = append(b, uint8(len(shards)))
	for _, s := range shards {
		b = append(b, s.Disk)
		b = binary.AppendUvarint(b, uint64(s.Slot)<<1|uint64(s.flags()))
	}
	return b
}

// append writes the ID as the distance from the lowest one that it can have.
func (s *SegmentRecord) append(b []byte, next SegmentID) []byte {
	b = binary.AppendUvarint(b, uint64(s.ID-next))
	stream := uint8(s.Stream)
	if s.Sealed {
		stream |= segmentSealed
	}
	b = append(b, stream)
	b = binary.AppendUvarint(b, uint64(s.Columns))
	b = binary.AppendUvarint(b, uint64(s.Live))
	b = binary.AppendUvarint(b, uint64(s.Written))
	b = binary.AppendUvarint(b, uint64(s.SealedAt))
	return appendShards(b, s.Shards)
}

func (l *LayerRecord) append(b []byte) []byte {
	if l.MergedInto != 0 {
		b = binary.AppendUvarint(append(b, layerMerged), uint64(l.ID))
		return binary.AppendUvarint(b, uint64(l.MergedInto))
	}
	flags := uint8(0)
	if l.Removed {
		flags |= layerRemoved
	}
	b = binary.AppendUvarint(append(b, flags), uint64(l.ID))
	b = binary.AppendUvarint(b, uint64(l.Parent))
	b = binary.AppendUvarint(b, l.SizeBlocks)
	b = appendString(b, l.Volume)
	b = appendString(b, l.Snapshot)
	b = appendString(b, l.Of)
	b = binary.AppendVarint(b, l.CreatedUnixNS)
	return appendLeaves(b, l.Leaves)
}

// appendLeaves writes indexes as the distance from the lowest one possible, and
// locations as the distance from the one before.
func appendLeaves(b []byte, leaves []LeafRecord) []byte {
	b = binary.AppendUvarint(b, uint64(len(leaves)))
	next, last := LeafIndex(0), int64(0)
	for _, leaf := range leaves {
		at := int64(leaf.At.Location())
		b = binary.AppendUvarint(b, uint64(leaf.Index-next))
		b = binary.AppendVarint(b, at-last)
		b = binary.LittleEndian.AppendUint32(b, leaf.At.sum())
		next, last = leaf.Index+1, at
	}
	return b
}

// manifestDecoder is the state between the parts of a manifest.
type manifestDecoder struct {
	cursor
	shards []ShardRecord // of the segments that are not decoded yet
}

// DecodeManifest reads a manifest from exactly its bytes.
func DecodeManifest(b []byte) (*Manifest, error) {
	length, err := manifestLayout.length(b)
	if err != nil {
		return nil, err
	}
	if length != len(b) || length < manifestHeaderBytes || length > MaxManifestBytes {
		return nil, fmt.Errorf("decode manifest: length %d in %d bytes: %w", length, len(b), ErrFormat)
	}
	if err := manifestLayout.check(b); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(b[headPrefixSumAt:]) != 0 {
		return nil, fmt.Errorf("decode manifest: checksum of a prefix: %w", ErrFormat)
	}
	if err := manifestLayout.reserved(b[manifestZerosAt:manifestHeaderBytes]); err != nil {
		return nil, err
	}
	m := &Manifest{
		Row:       RowNumber(binary.LittleEndian.Uint64(b[manifestRowAt:])),
		Sequence:  Sequence(binary.LittleEndian.Uint64(b[manifestSequenceAt:])),
		NextLayer: LayerID(binary.LittleEndian.Uint32(b[manifestNextLayerAt:])),
	}
	for i, counter := range m.Counters.fields() {
		*counter = binary.LittleEndian.Uint64(b[manifestCountersAt+i*8:])
	}
	if err := m.decodeBody(b); err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return m, nil
}

// decodeBody reads what is behind the header.
func (m *Manifest) decodeBody(b []byte) error {
	layers, segments, shards := counted(b, manifestLayerCountAt), counted(b, manifestSegmentCountAt), counted(b, manifestShardCountAt)
	body, err := m.decodeDisks(b[manifestHeaderBytes:], counted(b, manifestDiskCountAt))
	if err != nil {
		return err
	}
	if layers*minLayerBytes+segments*minSegmentBytes+(shards-segments)*minShardBytes > len(body) || shards < segments || layers > MaxLayers {
		return fmt.Errorf("decode manifest: %d layers, %d segments, %d shards in %d bytes: %w", layers, segments, shards, len(body), ErrFormat)
	}
	d := manifestDecoder{cursor: cursor{rest: body}, shards: make([]ShardRecord, shards)}
	for i := range m.Streams {
		m.Streams[i] = d.stream()
	}
	younger := counted(b, manifestYoungerCountAt)
	if younger > shards {
		return fmt.Errorf("decode manifest: %d younger segments, %d shards: %w", younger, shards, ErrFormat)
	}
	for range younger {
		m.Younger = append(m.Younger, PlaceRecord{ID: SegmentID(d.varint(math.MaxUint32 - 1)), Shards: d.someShards()})
	}
	if segments > 0 {
		m.Segments = make([]SegmentRecord, segments)
	}
	next := uint64(0)
	for i := range m.Segments {
		m.Segments[i] = d.segment(next)
		next = uint64(m.Segments[i].ID) + 1
	}
	if layers > 0 {
		m.Layers = make([]LayerRecord, layers)
	}
	for i := range m.Layers {
		m.Layers[i] = d.layer()
	}
	if d.failed || len(d.rest) > 0 || len(d.shards) > 0 {
		return fmt.Errorf("decode manifest: %d bytes with something wrong, %d left: %w", len(body), len(d.rest), ErrFormat)
	}
	return nil
}

// decodeDisks returns what is behind the disks.
func (m *Manifest) decodeDisks(body []byte, disks int) (rest []byte, err error) {
	if disks > MaxDisks || disks*manifestDiskBytes > len(body) {
		return nil, fmt.Errorf("decode manifest: %d disks in %d bytes: %w", disks, len(body), ErrFormat)
	}
	for range disks {
		m.Disks = append(m.Disks, DiskID(body))
		body = body[manifestDiskBytes:]
	}
	return body, nil
}

func counted(b []byte, at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }

func (d *manifestDecoder) stream() StreamRecord {
	return StreamRecord{
		Segment:    SegmentID(d.varint(math.MaxUint32) - 1),
		Column:     uint32(d.varint(math.MaxUint32)),
		Next:       SegmentID(d.varint(math.MaxUint32) - 1),
		NextShards: d.someShards(),
	}
}

// someShards takes them from those that were allocated for all segments at once.
func (d *manifestDecoder) someShards() []ShardRecord {
	n := int(d.byte())
	if n > len(d.shards) {
		d.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	shards := d.shards[:n:n]
	d.shards = d.shards[n:]
	for i := range shards {
		disk, slot := d.byte(), d.varint(math.MaxUint32<<1|1)
		shards[i] = ShardRecord{Disk: disk, Slot: uint32(slot >> 1), Stale: slot&1 != 0}
	}
	return shards
}

func (d *manifestDecoder) segment(next uint64) SegmentRecord {
	var s SegmentRecord
	if next < uint64(NoSegment) {
		s.ID = SegmentID(next + d.varint(uint64(NoSegment)-1-next))
	} else {
		d.fail()
	}
	stream := d.byte()
	s.Stream, s.Sealed = Stream(stream&^segmentSealed), stream&segmentSealed != 0
	s.Columns = uint32(d.varint(math.MaxUint32))
	s.Live = uint32(d.varint(math.MaxUint32))
	s.Written = WriteTime(d.varint(math.MaxUint64))
	s.SealedAt = WriteTime(d.varint(math.MaxUint64))
	s.Shards = d.someShards()
	return s
}

func (d *manifestDecoder) layer() LayerRecord {
	flags := d.byte()
	l := LayerRecord{ID: LayerID(d.varint(math.MaxUint32)), Removed: flags&layerRemoved != 0}
	switch {
	case flags == layerMerged:
		l.MergedInto = LayerID(d.varint(math.MaxUint32))
		if l.MergedInto == 0 {
			d.fail()
		}
		return l
	case flags > layerRemoved:
		d.fail()
		return l
	}
	l.Parent = LayerID(d.varint(math.MaxUint32))
	l.SizeBlocks = d.varint(uint64(MaxBlock))
	l.Volume = d.string(MaxNameBytes)
	l.Snapshot = d.string(MaxNameBytes)
	l.Of = d.string(MaxNameBytes)
	l.CreatedUnixNS = d.signed()
	l.Leaves = d.leaves()
	return l
}

func (d *manifestDecoder) leaves() []LeafRecord {
	n := d.count(minLeafBytes)
	if n == 0 {
		return nil
	}
	leaves := make([]LeafRecord, n)
	next, at := uint64(0), int64(0)
	for i := range leaves {
		index := next + d.varint(maxLeaves)
		at += d.signed()
		sum := d.uint32()
		if d.failed || index >= maxLeaves || at < 0 || at > int64(MaxLocation) || sum > maxSum {
			d.fail()
			return nil
		}
		leaves[i] = LeafRecord{Index: LeafIndex(index), At: NewEntry(Location(at), sum)}
		next = index + 1
	}
	return leaves
}
