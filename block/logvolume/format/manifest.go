package format

// Limits of a manifest; merged layers count.
const (
	MaxLayers    = 1 << 20
	MaxNameBytes = 255 // of a volume or snapshot
	// MaxManifestBytes is how long a manifest can be, for Root.Index to name it.
	MaxManifestBytes = MaxRootIndex * LeafEntries * BlockBytes
)

// LayerRecord is a layer in the manifest.
type LayerRecord struct {
	ID         LayerID
	Parent     LayerID // an older one, with a lower ID; 0: none
	SizeBlocks uint64
	// Volume is set in the layer that a volume writes to, Snapshot in one that is
	// a snapshot of the volume Of; both are empty for layers that others need.
	Volume, Snapshot, Of string
	CreatedUnixNS        int64
	Removed              bool // is to be merged into the layer above
	// MergedInto is another layer, for rows in the log that name this one; then
	// the rest is empty. The other may be merged too, or be gone.
	MergedInto LayerID
	Leaves     []LeafRecord
}

// LeafRecord says where a leaf is. Indexes grow.
type LeafRecord struct {
	Index LeafIndex
	At    Entry
}

// SegmentRecord is a segment that is in use.
type SegmentRecord struct {
	ID      SegmentID
	Stream  Stream
	Sealed  bool
	Columns uint32 // filled
	Live    uint32 // blocks of data that the map points to
	// Written is the mean of the times at which users wrote its blocks, SealedAt
	// when it was sealed.
	Written, SealedAt WriteTime
	Shards            []ShardRecord
}

// StreamRecord is where a stream goes on. Segment is NoSegment before its first row.
type StreamRecord struct {
	Segment SegmentID
	Column  uint32
	Next    SegmentID
	// NextShards are those of Next; none with NoSegment.
	NextShards []ShardRecord
}

// Counters are totals since the log was created, in blocks.
type Counters struct {
	UserWritten, HotWritten, ColdWritten, MetaWritten, JournalWritten, ParityWritten uint64
}

// Manifest is a checkpoint of everything but leaves.
type Manifest struct {
	Row       RowNumber
	Sequence  Sequence
	NextLayer LayerID
	Layers    []LayerRecord
	Segments  []SegmentRecord // IDs grow
	Streams   [StreamCount]StreamRecord
	Counters  Counters
	// Disks are those of the superblocks at that time. Where another one took a
	// place since, it has nothing of the shards that the segments say are there.
	Disks []DiskID // at most MaxDisks
	// Younger are segments that were begun after Row and hold leaves of this
	// checkpoint. Rows since Row tell of them, too, but leaves are needed before.
	Younger []PlaceRecord
}
