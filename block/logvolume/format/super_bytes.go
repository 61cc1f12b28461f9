package format

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// superLayout is that of a superblock; its length is always a block.
var superLayout = layout{name: "superblock", magic: "torporLS", version: 1}

const (
	superLogAt           = 24
	superDiskAt          = 40
	superGenerationAt    = 56
	superEpochAt         = 64
	superDataShardsAt    = 72
	superParityShardsAt  = 76
	superShardBytesAt    = 80
	superStripeBytesAt   = 88
	superJournalBytesAt  = 96
	superRowAt           = 104
	superManifestBytesAt = 112
	superDiskCountAt     = 120
	superIndexCountAt    = 124
	superPlaceCountAt    = 128
	superZerosAt         = 132
	superDisksAt         = 256
	superIndexAt         = superDisksAt + MaxDisks*diskBytes
	superPlacesAt        = superIndexAt + MaxRootIndex*entryBytes
	superTailAt          = superPlacesAt + MaxRootSegments*(placeHeadBytes+MaxShards*shardBytes)
)

// In superblocks a disk is its ID, its slots, its state and three zeros.
const (
	diskBytes   = 24
	diskSlotsAt = 16
	diskStateAt = 20
	diskZerosAt = 21
)

// A place is the segment's number, 4 zeros, and its shards.
const placeHeadBytes = 8

// Encode returns the superblock, one block. It panics if Validate has something
// against it.
func (s *Super) Encode() []byte {
	superLayout.must(s.Validate())
	b := make([]byte, BlockBytes)
	superLayout.begin(b, BlockBytes)
	copy(b[superLogAt:], s.Log[:])
	copy(b[superDiskAt:], s.Disk[:])
	binary.LittleEndian.PutUint64(b[superGenerationAt:], uint64(s.Generation))
	binary.LittleEndian.PutUint64(b[superEpochAt:], uint64(s.Epoch))
	binary.LittleEndian.PutUint32(b[superDataShardsAt:], uint32(s.Geometry.DataShards))
	binary.LittleEndian.PutUint32(b[superParityShardsAt:], uint32(s.Geometry.ParityShards))
	binary.LittleEndian.PutUint64(b[superShardBytesAt:], uint64(s.Geometry.ShardBytes))
	binary.LittleEndian.PutUint64(b[superStripeBytesAt:], uint64(s.Geometry.StripeBytes))
	binary.LittleEndian.PutUint64(b[superJournalBytesAt:], uint64(s.Geometry.JournalBytes))
	binary.LittleEndian.PutUint64(b[superRowAt:], uint64(s.Root.Row))
	binary.LittleEndian.PutUint64(b[superManifestBytesAt:], s.Root.ManifestBytes)
	binary.LittleEndian.PutUint32(b[superDiskCountAt:], uint32(len(s.Disks)))
	binary.LittleEndian.PutUint32(b[superIndexCountAt:], uint32(len(s.Root.Index)))
	for i, d := range s.Disks {
		one := b[superDisksAt+i*diskBytes:]
		copy(one, d.ID[:])
		binary.LittleEndian.PutUint32(one[diskSlotsAt:], d.Slots)
		one[diskStateAt] = uint8(d.State)
	}
	for i, e := range s.Root.Index {
		binary.LittleEndian.PutUint64(b[superIndexAt+i*entryBytes:], uint64(e))
	}
	binary.LittleEndian.PutUint32(b[superPlaceCountAt:], uint32(len(s.Root.Segments)))
	at := superPlacesAt
	for _, place := range s.Root.Segments {
		binary.LittleEndian.PutUint32(b[at:], uint32(place.ID))
		putShards(b[at+placeHeadBytes:], place.Shards)
		at += placeHeadBytes + len(place.Shards)*shardBytes
	}
	superLayout.finish(b)
	return b
}

// DecodeSuper reads a superblock from exactly one block.
func DecodeSuper(b []byte) (*Super, error) {
	length, err := superLayout.length(b)
	if err != nil {
		return nil, err
	}
	if len(b) != BlockBytes || length != BlockBytes {
		return nil, fmt.Errorf("decode superblock: length %d in %d bytes: %w", length, len(b), ErrFormat)
	}
	if err := superLayout.check(b); err != nil {
		return nil, err
	}
	s := &Super{
		Log:        LogID(b[superLogAt:]),
		Disk:       DiskID(b[superDiskAt:]),
		Generation: Generation(binary.LittleEndian.Uint64(b[superGenerationAt:])),
		Epoch:      Epoch(binary.LittleEndian.Uint64(b[superEpochAt:])),
		Geometry: Geometry{
			DataShards:   int(binary.LittleEndian.Uint32(b[superDataShardsAt:])),
			ParityShards: int(binary.LittleEndian.Uint32(b[superParityShardsAt:])),
			ShardBytes:   int64(binary.LittleEndian.Uint64(b[superShardBytesAt:])),
			StripeBytes:  int64(binary.LittleEndian.Uint64(b[superStripeBytesAt:])),
			JournalBytes: int64(binary.LittleEndian.Uint64(b[superJournalBytesAt:])),
		},
		Root: Root{
			Row:           RowNumber(binary.LittleEndian.Uint64(b[superRowAt:])),
			ManifestBytes: binary.LittleEndian.Uint64(b[superManifestBytesAt:]),
		},
	}
	if err := s.decodeTables(b); err != nil {
		return nil, err
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("decode superblock: %w", err)
	}
	return s, nil
}

// decodeTables reads disks and index, and checks that all else is zero.
func (s *Super) decodeTables(b []byte) error {
	disks, index := binary.LittleEndian.Uint32(b[superDiskCountAt:]), binary.LittleEndian.Uint32(b[superIndexCountAt:])
	if disks > MaxDisks || index > MaxRootIndex {
		return fmt.Errorf("decode superblock: %d disks, %d index blocks: %w", disks, index, ErrFormat)
	}
	for i := range int(disks) {
		one := b[superDisksAt+i*diskBytes : superDisksAt+(i+1)*diskBytes]
		if err := superLayout.reserved(one[diskZerosAt:]); err != nil {
			return err
		}
		s.Disks = append(s.Disks, DiskRecord{ID: DiskID(one), Slots: binary.LittleEndian.Uint32(one[diskSlotsAt:]), State: DiskState(one[diskStateAt])})
	}
	for i := range int(index) {
		s.Root.Index = append(s.Root.Index, Entry(binary.LittleEndian.Uint64(b[superIndexAt+i*entryBytes:])))
	}
	end, err := s.decodePlaces(b)
	if err != nil {
		return err
	}
	for _, zeros := range [][]byte{
		b[headPrefixSumAt:headBytes],
		b[superZerosAt:superDisksAt],
		b[superDisksAt+int(disks)*diskBytes : superIndexAt],
		b[superIndexAt+int(index)*entryBytes : superPlacesAt],
		b[end:],
	} {
		if err := superLayout.reserved(zeros); err != nil {
			return err
		}
	}
	return nil
}

// decodePlaces reads the segments of the root, and returns where they end.
func (s *Super) decodePlaces(b []byte) (end int, err error) {
	count := binary.LittleEndian.Uint32(b[superPlaceCountAt:])
	shards := s.Geometry.Shards()
	if count > MaxRootSegments || shards < 1 || shards > MaxShards {
		return 0, fmt.Errorf("decode superblock: %d segments of %d shards: %w", count, shards, ErrFormat)
	}
	at := superPlacesAt
	for range count {
		place := PlaceRecord{ID: SegmentID(binary.LittleEndian.Uint32(b[at:]))}
		if err := superLayout.reserved(b[at+4 : at+placeHeadBytes]); err != nil {
			return 0, err
		}
		if place.Shards, err = shardsIn(b[at+placeHeadBytes:], shards); err != nil {
			return 0, err
		}
		s.Root.Segments = append(s.Root.Segments, place)
		at += placeHeadBytes + shards*shardBytes
	}
	return at, nil
}

// Validate returns ErrFormat with what is wrong.
func (s *Super) Validate() error {
	if err := s.Geometry.Validate(); err != nil {
		return err
	}
	if err := s.validateDisks(); err != nil {
		return err
	}
	if err := s.Root.validate(); err != nil {
		return err
	}
	for i, place := range s.Root.Segments {
		if slices.ContainsFunc(s.Root.Segments[:i], func(other PlaceRecord) bool { return other.ID == place.ID }) {
			return fmt.Errorf("segment %d twice: %w", place.ID, ErrFormat)
		}
		if err := s.holds(place.ID, place.Shards); err != nil {
			return err
		}
		if err := validateShards(place.ID, place.Shards); err != nil {
			return err
		}
	}
	return nil
}

func (s *Super) validateDisks() error {
	if len(s.Disks) < s.Geometry.Shards() || len(s.Disks) > MaxDisks {
		return fmt.Errorf("%d disks for %d+%d: %w", len(s.Disks), s.Geometry.DataShards, s.Geometry.ParityShards, ErrFormat)
	}
	self := false
	for i, d := range s.Disks {
		if d.State > DiskFilling {
			return fmt.Errorf("disk %s in state %d: %w", d.ID, d.State, ErrFormat)
		}
		for _, other := range s.Disks[:i] {
			if d.ID == other.ID {
				return fmt.Errorf("disk %s twice: %w", d.ID, ErrFormat)
			}
		}
		self = self || d.ID == s.Disk
	}
	if !self {
		return fmt.Errorf("disk %s is not among the disks: %w", s.Disk, ErrFormat)
	}
	return nil
}

// IndexBlocks is how many blocks of entries a manifest of so many bytes has.
func IndexBlocks(manifestBytes uint64) int {
	return blocks(uint64(blocks(manifestBytes)) * entryBytes)
}

func (r Root) validate() error {
	if (r.Row == 0) != (r.ManifestBytes == 0) || (r.Row == 0) != (len(r.Segments) == 0) || len(r.Segments) > MaxRootSegments || r.ManifestBytes > MaxManifestBytes || len(r.Index) != IndexBlocks(r.ManifestBytes) {
		return fmt.Errorf("checkpoint at row %d of %d bytes, %d index blocks: %w", r.Row, r.ManifestBytes, len(r.Index), ErrFormat)
	}
	for _, e := range r.Index {
		if !e.Mapped() {
			return fmt.Errorf("index block at %#x: %w", uint64(e), ErrFormat)
		}
	}
	return nil
}
