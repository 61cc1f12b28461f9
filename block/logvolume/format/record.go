package format

// Record is the header of a journal record: HeaderBlocks blocks of header, then the
// stored blocks.
type Record struct {
	Log     LogID
	Epoch   Epoch
	After   Sequence // holds all changes after this one
	Through Sequence // up to this one
	Extents []Extent // KindData and KindHole
	Sums    []uint32 // CRC32C of each stored block
}
