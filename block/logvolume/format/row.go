package format

// Row is the header of a row. The row fills Columns columns of its segment from
// Column on. Its *slots* are numbered through the data shards: slot i is in
// shard i / Columns, column Column + i % Columns. The header takes the first
// HeaderBlocks slots, then come the stored blocks of the extents in order, then zeros.
type Row struct {
	Log     LogID
	Epoch   Epoch
	Number  RowNumber
	Stream  Stream
	Segment SegmentID
	Column  uint32
	Columns uint32
	Next    SegmentID // where the stream goes on after this segment, or NoSegment
	// NextShards are those of Next, so that recovery can follow the stream to
	// segments younger than the checkpoint; none with NoSegment.
	NextShards []ShardRecord
	Sequence   Sequence  // all changes up to this one are in rows up to this one
	Durable    RowNumber // all rows up to this one were durable when this one was made
	Extents    []Extent  // in the order in which they apply
	Sums       []uint32  // CRC32C of each stored block
}
