package format

import "fmt"

// BlockBytes is the unit of everything in a log.
const BlockBytes = 4096

// HeadBytes is the part of a disk before the journal: superblocks at
// SuperOffsets, zeros elsewhere.
const HeadBytes = 1 << 20

// SuperOffsets are where the two superblocks of a disk are, in bytes;
// Generation & 1 says which is written.
var SuperOffsets = [2]int64{64 << 10, 128 << 10}

// Limits of a geometry.
const (
	MaxDisks      = 64
	MaxShards     = 32 // k + m
	MinShardBytes = 64 << 10
	MaxShardBytes = 1 << 30
)

// Geometry is what is decided when a log is created, and stays.
type Geometry struct {
	DataShards   int   // k, at least 1
	ParityShards int   // m, at least 0
	ShardBytes   int64 // what a segment takes on each of its disks
	StripeBytes  int64 // the most of one row on the data shards; at least BlockBytes * k
	JournalBytes int64 // on each disk; HeadBytes + JournalBytes is a multiple of ShardBytes
}

// Shards is k + m.
func (g Geometry) Shards() int { return g.DataShards + g.ParityShards }

// Columns is how many blocks a shard has.
func (g Geometry) Columns() int { return int(g.ShardBytes / BlockBytes) }

// SegmentBlocks is how many blocks the data shards of a segment have.
func (g Geometry) SegmentBlocks() int { return g.Columns() * g.DataShards }

// At returns the location of a block of a segment.
func (g Geometry) At(s SegmentID, shard, column int) Location {
	return Location(s)*Location(g.SegmentBlocks()) + Location(shard*g.Columns()+column)
}

// Place is the inverse of At.
func (g Geometry) Place(at Location) (s SegmentID, shard, column int) {
	inSegment := int(at % Location(g.SegmentBlocks()))
	return SegmentID(at / Location(g.SegmentBlocks())), inSegment / g.Columns(), inSegment % g.Columns()
}

// SlotOffset is where a slot begins on a disk, in bytes.
func (g Geometry) SlotOffset(slot uint32) int64 {
	return HeadBytes + g.JournalBytes + int64(slot)*g.ShardBytes
}

// fits returns ErrFormat if the segment has blocks without a location.
func (g Geometry) fits(s SegmentID) error {
	if blocks := Location(g.SegmentBlocks()); Location(s)+1 > MaxLocation/blocks {
		return fmt.Errorf("segment %d of %d blocks: %w", s, blocks, ErrFormat)
	}
	return nil
}

// Validate returns ErrFormat with what is wrong.
func (g Geometry) Validate() error {
	switch {
	case g.DataShards < 1 || g.ParityShards < 0 || g.Shards() > MaxShards:
		return fmt.Errorf("layout %d+%d: %w", g.DataShards, g.ParityShards, ErrFormat)
	case g.ShardBytes < MinShardBytes || g.ShardBytes > MaxShardBytes || g.ShardBytes%BlockBytes != 0:
		return fmt.Errorf("shard of %d bytes: %w", g.ShardBytes, ErrFormat)
	case g.StripeBytes < BlockBytes*int64(g.DataShards) || g.StripeBytes > g.ShardBytes*int64(g.DataShards) || g.StripeBytes%BlockBytes != 0:
		return fmt.Errorf("stripe of %d bytes: %w", g.StripeBytes, ErrFormat)
	case g.JournalBytes < 0 || g.JournalBytes > 1<<40 || (HeadBytes+g.JournalBytes)%g.ShardBytes != 0:
		return fmt.Errorf("journal of %d bytes: %w", g.JournalBytes, ErrFormat)
	}
	return nil
}
