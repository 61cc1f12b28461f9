package format

import (
	"encoding/binary"
	"fmt"
)

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

// Validate returns ErrFormat with what is wrong.
func (e Extent) Validate() error {
	limit := uint64(MaxBlock)
	if e.Kind == KindLeaf {
		limit /= LeafEntries
	}
	ofLayer := e.Kind == KindData || e.Kind == KindHole || e.Kind == KindLeaf
	switch {
	case e.Kind < KindData || e.Kind > KindIndex:
		return fmt.Errorf("extent of kind %d: %w", e.Kind, ErrFormat)
	case ofLayer != (e.Layer != 0):
		return fmt.Errorf("extent of kind %d in layer %d: %w", e.Kind, e.Layer, ErrFormat)
	case e.Count < 1 || e.Start > limit-uint64(e.Count):
		return fmt.Errorf("extent %d+%d: %w", e.Start, e.Count, ErrFormat)
	}
	return nil
}

// An extent is two words: the kind and, from bit 24 on, the start; the layer
// and, from bit 32 on, the count.
const (
	extentBytes     = 16
	extentStartBit  = 24
	extentReserved  = 0xffff00 // of the first word
	extentCountBit  = 32
	extentSumsBytes = 4
)

// putExtents writes extents, then sums, and returns how long both are.
func putExtents(b []byte, extents []Extent, sums []uint32) int {
	at := 0
	for _, e := range extents {
		word := b[at : at+extentBytes]
		binary.LittleEndian.PutUint64(word, uint64(e.Kind)|e.Start<<extentStartBit)
		binary.LittleEndian.PutUint64(word[8:], uint64(e.Layer)|uint64(e.Count)<<extentCountBit)
		at += extentBytes
	}
	for _, sum := range sums {
		binary.LittleEndian.PutUint32(b[at:], sum)
		at += extentSumsBytes
	}
	return at
}

// extentsIn reads what putExtents wrote. It checks reserved bits only.
func extentsIn(b []byte, extentCount, sumCount int) (extents []Extent, sums []uint32, err error) {
	if extentCount > 0 {
		extents = make([]Extent, extentCount)
	}
	for i := range extents {
		first, second := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if first&extentReserved != 0 {
			return nil, nil, fmt.Errorf("extent %#x with reserved bits: %w", first, ErrFormat)
		}
		extents[i] = Extent{Kind: ExtentKind(first), Layer: LayerID(second), Start: first >> extentStartBit, Count: uint32(second >> extentCountBit)}
		b = b[extentBytes:]
	}
	if sumCount > 0 {
		sums = make([]uint32, sumCount)
	}
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint32(b[i*extentSumsBytes:])
	}
	return extents, sums, nil
}

// validateExtents checks each extent, and that there are as many sums as stored blocks.
func validateExtents(extents []Extent, sums []uint32) error {
	stored := 0
	for _, e := range extents {
		if err := e.Validate(); err != nil {
			return err
		}
		stored += e.Stored()
	}
	if stored != len(sums) {
		return fmt.Errorf("extents of %d stored blocks with %d checksums: %w", stored, len(sums), ErrFormat)
	}
	return nil
}
