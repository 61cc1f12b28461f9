package format

import (
	"encoding/binary"
	"fmt"
)

// rowLayout is that of a row header: the prefix, NextShards, extents, sums, and
// zeros to the end of the block.
var rowLayout = layout{name: "row header", magic: "torporLR", version: 1, prefixBytes: rowPrefixBytes}

const (
	rowLogAt          = 24
	rowEpochAt        = 40
	rowNumberAt       = 48
	rowSequenceAt     = 56
	rowDurableAt      = 64
	rowSegmentAt      = 72
	rowColumnAt       = 76
	rowColumnsAt      = 80
	rowNextAt         = 84
	rowExtentCountAt  = 88
	rowSumCountAt     = 92
	rowStreamAt       = 96
	rowNextShardsAt   = 97
	rowPrefixZerosAt  = 98
	rowPrefixBytes    = 128
	maxColumns        = MaxShardBytes / BlockBytes
	maxSegmentColumns = maxColumns * MaxShards
)

// RowPrefix is what the first block of a row header says, by itself: how long
// header and row are, and whether it is the row that was looked for.
type RowPrefix struct {
	Log      LogID
	Epoch    Epoch
	Number   RowNumber
	Sequence Sequence
	Durable  RowNumber
	Stream   Stream
	Segment  SegmentID
	Column   uint32
	Columns  uint32
	Next     SegmentID
	// HeaderBlocks and StoredBlocks are what the row has in its first slots.
	HeaderBlocks int
	StoredBlocks int
}

// rowHeaderBytes is how long a header is without the zeros behind it.
func rowHeaderBytes(nextShards, extents, sums uint64) uint64 {
	return rowPrefixBytes + nextShards*shardBytes + extents*extentBytes + sums*extentSumsBytes
}

func (r *Row) headerBytes() uint64 {
	return rowHeaderBytes(uint64(len(r.NextShards)), uint64(len(r.Extents)), uint64(len(r.Sums)))
}

// RowHeaderBlocks is what HeaderBlocks returns for a row with so many shards,
// extents and stored blocks.
func RowHeaderBlocks(nextShards, extents, stored int) int {
	return blocks(rowHeaderBytes(uint64(nextShards), uint64(extents), uint64(stored)))
}

// HeaderBlocks is how many blocks the header takes. It depends on the numbers of
// extents, sums and next shards only.
func (r *Row) HeaderBlocks() int { return blocks(r.headerBytes()) }

// Prefix is what DecodeRowPrefix returns for the row.
func (r *Row) Prefix() RowPrefix {
	return RowPrefix{Log: r.Log, Epoch: r.Epoch, Number: r.Number, Sequence: r.Sequence, Durable: r.Durable, Stream: r.Stream, Segment: r.Segment,
		Column: r.Column, Columns: r.Columns, Next: r.Next, HeaderBlocks: r.HeaderBlocks(), StoredBlocks: len(r.Sums)}
}

// EncodeTo writes the header to b, HeaderBlocks blocks long. It allocates
// nothing. It panics if Validate has something against the row.
func (r *Row) EncodeTo(b []byte) {
	rowLayout.must(r.Validate())
	length := int(r.headerBytes())
	if len(b) != r.HeaderBlocks()*BlockBytes {
		panic(fmt.Sprintf("encode row header of %d bytes to %d", length, len(b)))
	}
	rowLayout.begin(b, length)
	copy(b[rowLogAt:], r.Log[:])
	binary.LittleEndian.PutUint64(b[rowEpochAt:], uint64(r.Epoch))
	binary.LittleEndian.PutUint64(b[rowNumberAt:], uint64(r.Number))
	binary.LittleEndian.PutUint64(b[rowSequenceAt:], uint64(r.Sequence))
	binary.LittleEndian.PutUint64(b[rowDurableAt:], uint64(r.Durable))
	binary.LittleEndian.PutUint32(b[rowSegmentAt:], uint32(r.Segment))
	binary.LittleEndian.PutUint32(b[rowColumnAt:], r.Column)
	binary.LittleEndian.PutUint32(b[rowColumnsAt:], r.Columns)
	binary.LittleEndian.PutUint32(b[rowNextAt:], uint32(r.Next))
	binary.LittleEndian.PutUint32(b[rowExtentCountAt:], uint32(len(r.Extents)))
	binary.LittleEndian.PutUint32(b[rowSumCountAt:], uint32(len(r.Sums)))
	b[rowStreamAt] = uint8(r.Stream)
	b[rowNextShardsAt] = uint8(len(r.NextShards))
	clear(b[rowPrefixZerosAt:rowPrefixBytes])
	putShards(b[rowPrefixBytes:], r.NextShards)
	putExtents(b[rowPrefixBytes+len(r.NextShards)*shardBytes:], r.Extents, r.Sums)
	clear(b[length:])
	rowLayout.finish(b)
}

// DecodeRowPrefix reads the prefix of a row header from its first block, or the
// first 128 bytes of that. It is checked; what is behind it is not.
func DecodeRowPrefix(first []byte) (RowPrefix, error) {
	length, err := rowLayout.length(first)
	if err != nil {
		return RowPrefix{}, err
	}
	if err := rowLayout.checkPrefix(first); err != nil {
		return RowPrefix{}, err
	}
	if err := rowLayout.reserved(first[rowPrefixZerosAt:rowPrefixBytes]); err != nil {
		return RowPrefix{}, err
	}
	extents, sums := binary.LittleEndian.Uint32(first[rowExtentCountAt:]), binary.LittleEndian.Uint32(first[rowSumCountAt:])
	if want := rowHeaderBytes(uint64(first[rowNextShardsAt]), uint64(extents), uint64(sums)); uint64(length) != want {
		return RowPrefix{}, fmt.Errorf("decode row header: %d bytes, not %d: %w", length, want, ErrFormat)
	}
	p := RowPrefix{
		Log:          LogID(first[rowLogAt:]),
		Epoch:        Epoch(binary.LittleEndian.Uint64(first[rowEpochAt:])),
		Number:       RowNumber(binary.LittleEndian.Uint64(first[rowNumberAt:])),
		Sequence:     Sequence(binary.LittleEndian.Uint64(first[rowSequenceAt:])),
		Durable:      RowNumber(binary.LittleEndian.Uint64(first[rowDurableAt:])),
		Stream:       Stream(first[rowStreamAt]),
		Segment:      SegmentID(binary.LittleEndian.Uint32(first[rowSegmentAt:])),
		Column:       binary.LittleEndian.Uint32(first[rowColumnAt:]),
		Columns:      binary.LittleEndian.Uint32(first[rowColumnsAt:]),
		Next:         SegmentID(binary.LittleEndian.Uint32(first[rowNextAt:])),
		HeaderBlocks: blocks(uint64(length)),
		StoredBlocks: int(sums),
	}
	if err := p.Validate(); err != nil {
		return RowPrefix{}, fmt.Errorf("decode row header: %w", err)
	}
	return p, nil
}

// DecodeRow reads a row header. What is in b behind the header is ignored; a
// header of which b lacks something is ErrFormat.
func DecodeRow(b []byte) (*Row, error) {
	p, err := DecodeRowPrefix(b)
	if err != nil {
		return nil, err
	}
	if len(b) < p.HeaderBlocks*BlockBytes {
		return nil, fmt.Errorf("decode row header: %d of %d blocks: %w", len(b)/BlockBytes, p.HeaderBlocks, ErrFormat)
	}
	b = b[:p.HeaderBlocks*BlockBytes]
	if err := rowLayout.check(b); err != nil {
		return nil, err
	}
	r := &Row{Log: p.Log, Epoch: p.Epoch, Number: p.Number, Stream: p.Stream, Segment: p.Segment, Column: p.Column, Columns: p.Columns,
		Next: p.Next, Sequence: p.Sequence, Durable: p.Durable}
	if err := r.decodeBody(b, p); err != nil {
		return nil, fmt.Errorf("decode row header: %w", err)
	}
	return r, nil
}

// decodeBody reads what is behind the prefix, which was checked.
func (r *Row) decodeBody(b []byte, p RowPrefix) (err error) {
	nextShards := int(b[rowNextShardsAt])
	if r.NextShards, err = shardsIn(b[rowPrefixBytes:], nextShards); err != nil {
		return err
	}
	extents := int(binary.LittleEndian.Uint32(b[rowExtentCountAt:]))
	r.Extents, r.Sums, err = extentsIn(b[rowPrefixBytes+nextShards*shardBytes:], extents, p.StoredBlocks)
	if err != nil {
		return err
	}
	if err := rowLayout.reserved(b[r.headerBytes():]); err != nil {
		return err
	}
	return r.Validate()
}

// Validate returns ErrFormat with what is wrong. Whether a row fits its segment
// is for Fits to say.
func (r *Row) Validate() error {
	if err := r.Prefix().Validate(); err != nil {
		return err
	}
	if err := validateShards(r.Next, r.NextShards); err != nil {
		return fmt.Errorf("row %d: next %w", r.Number, err)
	}
	if err := validateExtents(r.Extents, r.Sums); err != nil {
		return fmt.Errorf("row %d: %w", r.Number, err)
	}
	return nil
}

// Fits returns ErrFormat if a log of this geometry has no such row.
func (r *Row) Fits(g Geometry) error {
	if r.Next != NoSegment && len(r.NextShards) != g.Shards() {
		return fmt.Errorf("row %d: %d next shards of %d: %w", r.Number, len(r.NextShards), g.Shards(), ErrFormat)
	}
	return r.Prefix().Fits(g)
}

// Validate returns ErrFormat with what is wrong.
func (p RowPrefix) Validate() error {
	switch {
	case p.Number < 1 || p.Durable >= p.Number:
		return fmt.Errorf("row %d after durable row %d: %w", p.Number, p.Durable, ErrFormat)
	case p.Stream >= StreamCount:
		return fmt.Errorf("row %d of stream %d: %w", p.Number, p.Stream, ErrFormat)
	case p.Segment == NoSegment || p.Segment == p.Next:
		return fmt.Errorf("row %d in segment %d before segment %d: %w", p.Number, p.Segment, p.Next, ErrFormat)
	case p.Columns < 1 || p.Columns > maxColumns || p.Column > maxColumns-p.Columns:
		return fmt.Errorf("row %d in columns %d+%d: %w", p.Number, p.Column, p.Columns, ErrFormat)
	case p.HeaderBlocks < 1 || p.HeaderBlocks > maxSegmentColumns || p.StoredBlocks > maxSegmentColumns-p.HeaderBlocks:
		return fmt.Errorf("row %d of %d+%d blocks: %w", p.Number, p.HeaderBlocks, p.StoredBlocks, ErrFormat)
	}
	return nil
}

// Fits returns ErrFormat if a log of this geometry has no such row: its columns
// are not in a segment, or header and stored blocks not in its columns.
func (p RowPrefix) Fits(g Geometry) error {
	switch {
	case int(p.Columns) > g.Columns() || int(p.Column) > g.Columns()-int(p.Columns):
		return fmt.Errorf("row %d in columns %d+%d of %d: %w", p.Number, p.Column, p.Columns, g.Columns(), ErrFormat)
	case p.HeaderBlocks+p.StoredBlocks > int(p.Columns)*g.DataShards:
		return fmt.Errorf("row %d of %d+%d blocks in %d columns: %w", p.Number, p.HeaderBlocks, p.StoredBlocks, p.Columns, ErrFormat)
	}
	return g.fits(p.Segment)
}
