package format

// ExtentKind says what the blocks of an extent are.
type ExtentKind uint8

// Kinds of extent. Data, Leaf and Manifest have as many blocks in the row as
// their count says; Hole has none.
const (
	KindData     ExtentKind = 1 + iota // blocks of a layer
	KindHole                           // blocks of a layer that read as zeros from now on
	KindLeaf                           // leaves of a layer's map; Start is a LeafIndex
	KindManifest                       // parts of the manifest; Start numbers them
	KindIndex                          // entries of manifest parts; Start numbers them
)

// Extent is a run of blocks that a row or a journal record describes.
type Extent struct {
	Kind  ExtentKind
	Layer LayerID
	Start uint64 // Block, or what the kind says; below MaxBlock
	Count uint32 // at least 1
}

// Stored is how many blocks of a row or record the extent has.
func (e Extent) Stored() int {
	if e.Kind == KindHole {
		return 0
	}
	return int(e.Count)
}

// Row is the header of a row. The row fills Columns columns of its segment from
// Column on. Its *slots* are numbered through the data shards: slot i is in
// shard i / Columns, column Column + i % Columns. The header takes the first
// HeaderBlocks slots, then come the stored blocks of the extents in order, then zeros.
type Row struct {
	Log      LogID
	Epoch    Epoch
	Number   RowNumber
	Stream   Stream
	Segment  SegmentID
	Column   uint32
	Columns  uint32
	Next     SegmentID // where the stream goes on after this segment, or NoSegment
	Sequence Sequence  // all changes up to this one are in rows up to this one
	Durable  RowNumber // all rows up to this one were durable when this one was made
	Extents  []Extent  // in the order in which they apply
	Sums     []uint32  // CRC32C of each stored block
}

// Record is the header of a journal record: HeaderBlocks blocks of header, then the
// stored blocks.
type Record struct {
	Log     LogID
	Epoch   Epoch
	After   Sequence // holds all changes after this one
	Through Sequence // up to this one
	Extents []Extent // KindData and KindHole
	Sums    []uint32
}
