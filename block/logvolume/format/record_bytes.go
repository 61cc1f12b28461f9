package format

import (
	"encoding/binary"
	"fmt"
)

// recordLayout is that of a journal record's header: the prefix, extents, sums,
// and zeros to the end of the block.
var recordLayout = layout{name: "journal record", magic: "torporLJ", version: 1, prefixBytes: recordPrefixBytes}

const (
	recordLogAt         = 24
	recordEpochAt       = 40
	recordAfterAt       = 48
	recordThroughAt     = 56
	recordExtentCountAt = 64
	recordSumCountAt    = 68
	recordPrefixZerosAt = 72
	recordPrefixBytes   = 96
)

// RecordPrefix is what the first block of a journal record says, by itself.
type RecordPrefix struct {
	Log            LogID
	Epoch          Epoch
	After, Through Sequence
	// HeaderBlocks and StoredBlocks are what the record takes of the journal.
	HeaderBlocks int
	StoredBlocks int
}

// recordHeaderBytes is how long a header is without the zeros behind it.
func recordHeaderBytes(extents, sums uint64) uint64 {
	return recordPrefixBytes + extents*extentBytes + sums*extentSumsBytes
}

func (r *Record) headerBytes() uint64 {
	return recordHeaderBytes(uint64(len(r.Extents)), uint64(len(r.Sums)))
}

// HeaderBlocks is how many blocks the header takes. It depends on the numbers of
// extents and sums only.
func (r *Record) HeaderBlocks() int { return blocks(r.headerBytes()) }

// Prefix is what DecodeRecordPrefix returns for the record.
func (r *Record) Prefix() RecordPrefix {
	return RecordPrefix{Log: r.Log, Epoch: r.Epoch, After: r.After, Through: r.Through, HeaderBlocks: r.HeaderBlocks(), StoredBlocks: len(r.Sums)}
}

// EncodeTo writes the header to b, HeaderBlocks blocks long. It allocates
// nothing. It panics if Validate has something against the record.
func (r *Record) EncodeTo(b []byte) {
	recordLayout.must(r.Validate())
	length := int(r.headerBytes())
	if len(b) != r.HeaderBlocks()*BlockBytes {
		panic(fmt.Sprintf("encode journal record of %d bytes to %d", length, len(b)))
	}
	recordLayout.begin(b, length)
	copy(b[recordLogAt:], r.Log[:])
	binary.LittleEndian.PutUint64(b[recordEpochAt:], uint64(r.Epoch))
	binary.LittleEndian.PutUint64(b[recordAfterAt:], uint64(r.After))
	binary.LittleEndian.PutUint64(b[recordThroughAt:], uint64(r.Through))
	binary.LittleEndian.PutUint32(b[recordExtentCountAt:], uint32(len(r.Extents)))
	binary.LittleEndian.PutUint32(b[recordSumCountAt:], uint32(len(r.Sums)))
	clear(b[recordPrefixZerosAt:recordPrefixBytes])
	putExtents(b[recordPrefixBytes:], r.Extents, r.Sums)
	clear(b[length:])
	recordLayout.finish(b)
}

// DecodeRecordPrefix reads the prefix of a journal record from its first block,
// or the first 96 bytes of that. It is checked; what is behind it is not.
func DecodeRecordPrefix(first []byte) (RecordPrefix, error) {
	length, err := recordLayout.length(first)
	if err != nil {
		return RecordPrefix{}, err
	}
	if err := recordLayout.checkPrefix(first); err != nil {
		return RecordPrefix{}, err
	}
	if err := recordLayout.reserved(first[recordPrefixZerosAt:recordPrefixBytes]); err != nil {
		return RecordPrefix{}, err
	}
	extents, sums := binary.LittleEndian.Uint32(first[recordExtentCountAt:]), binary.LittleEndian.Uint32(first[recordSumCountAt:])
	if want := recordHeaderBytes(uint64(extents), uint64(sums)); uint64(length) != want {
		return RecordPrefix{}, fmt.Errorf("decode journal record: %d bytes, not %d: %w", length, want, ErrFormat)
	}
	p := RecordPrefix{
		Log:          LogID(first[recordLogAt:]),
		Epoch:        Epoch(binary.LittleEndian.Uint64(first[recordEpochAt:])),
		After:        Sequence(binary.LittleEndian.Uint64(first[recordAfterAt:])),
		Through:      Sequence(binary.LittleEndian.Uint64(first[recordThroughAt:])),
		HeaderBlocks: blocks(uint64(length)),
		StoredBlocks: int(sums),
	}
	if err := p.Validate(); err != nil {
		return RecordPrefix{}, fmt.Errorf("decode journal record: %w", err)
	}
	return p, nil
}

// DecodeRecord reads the header of a journal record. What is in b behind the
// header is ignored; a header of which b lacks something is ErrFormat.
func DecodeRecord(b []byte) (*Record, error) {
	p, err := DecodeRecordPrefix(b)
	if err != nil {
		return nil, err
	}
	if len(b) < p.HeaderBlocks*BlockBytes {
		return nil, fmt.Errorf("decode journal record: %d of %d blocks: %w", len(b)/BlockBytes, p.HeaderBlocks, ErrFormat)
	}
	b = b[:p.HeaderBlocks*BlockBytes]
	if err := recordLayout.check(b); err != nil {
		return nil, err
	}
	r := &Record{Log: p.Log, Epoch: p.Epoch, After: p.After, Through: p.Through}
	extents := int(binary.LittleEndian.Uint32(b[recordExtentCountAt:]))
	r.Extents, r.Sums, err = extentsIn(b[recordPrefixBytes:], extents, p.StoredBlocks)
	if err != nil {
		return nil, fmt.Errorf("decode journal record: %w", err)
	}
	if err := recordLayout.reserved(b[r.headerBytes():]); err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("decode journal record: %w", err)
	}
	return r, nil
}

// Validate returns ErrFormat with what is wrong.
func (r *Record) Validate() error {
	if err := r.Prefix().Validate(); err != nil {
		return err
	}
	for _, e := range r.Extents {
		if e.Kind != KindData && e.Kind != KindHole {
			return fmt.Errorf("record of changes %d to %d: extent of kind %d: %w", r.After, r.Through, e.Kind, ErrFormat)
		}
	}
	if err := validateExtents(r.Extents, r.Sums); err != nil {
		return fmt.Errorf("record of changes %d to %d: %w", r.After, r.Through, err)
	}
	return nil
}

// Validate returns ErrFormat with what is wrong.
func (p RecordPrefix) Validate() error {
	if p.After > p.Through {
		return fmt.Errorf("record of changes %d to %d: %w", p.After, p.Through, ErrFormat)
	}
	return nil
}

// Fits returns ErrFormat if the journal of a log of this geometry is shorter
// than the record.
func (p RecordPrefix) Fits(g Geometry) error {
	if n := int64(p.HeaderBlocks+p.StoredBlocks) * BlockBytes; n > g.JournalBytes {
		return fmt.Errorf("record of %d bytes in a journal of %d: %w", n, g.JournalBytes, ErrFormat)
	}
	return nil
}

// Fits is that of the prefix.
func (r *Record) Fits(g Geometry) error { return r.Prefix().Fits(g) }
