package format

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Every structure with a header of its own begins with a head:
//
//	0	8	magic
//	8	4	version
//	12	4	length
//	16	4	CRC-32C of all but these 4 bytes
//	20	4	CRC-32C of the prefix without these 8 bytes, or zero
const (
	headVersionAt   = 8
	headLengthAt    = 12
	headSumAt       = 16
	headPrefixSumAt = 20
	headBytes       = 24
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the one that is used for everything: CRC-32C (Castagnoli).
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// layout is what tells one structure from another.
type layout struct {
	name, magic string
	version     uint32
	prefixBytes int // covered by a checksum of its own; 0: none
}

// begin writes magic, version and length.
func (l layout) begin(b []byte, length int) {
	if uint64(length) > 1<<32-1 {
		panic(fmt.Sprintf("encode %s of %d bytes", l.name, length))
	}
	copy(b[:headVersionAt], l.magic)
	binary.LittleEndian.PutUint32(b[headVersionAt:], l.version)
	binary.LittleEndian.PutUint32(b[headLengthAt:], uint32(length))
	binary.LittleEndian.PutUint32(b[headPrefixSumAt:], 0)
}

// finish writes the checksums. The one of the prefix is covered by the other.
func (l layout) finish(b []byte) {
	if l.prefixBytes > 0 {
		binary.LittleEndian.PutUint32(b[headPrefixSumAt:], sumWithout(b[:l.prefixBytes], headSumAt, headBytes))
	}
	binary.LittleEndian.PutUint32(b[headSumAt:], sumWithout(b, headSumAt, headPrefixSumAt))
}

// length checks magic and version, and returns the length, which may be anything.
func (l layout) length(b []byte) (int, error) {
	switch {
	case len(b) < max(headBytes, l.prefixBytes):
		return 0, fmt.Errorf("decode %s: %d bytes: %w", l.name, len(b), ErrFormat)
	case string(b[:headVersionAt]) != l.magic:
		return 0, fmt.Errorf("decode %s: magic %q: %w", l.name, b[:headVersionAt], ErrFormat)
	}
	if v := binary.LittleEndian.Uint32(b[headVersionAt:]); v != l.version {
		return 0, fmt.Errorf("decode %s: version %d: %w", l.name, v, ErrVersion)
	}
	return int(binary.LittleEndian.Uint32(b[headLengthAt:])), nil
}

// checkPrefix compares the prefix, whose length was checked, with its checksum.
func (l layout) checkPrefix(b []byte) error {
	return l.compare(b[headPrefixSumAt:], sumWithout(b[:l.prefixBytes], headSumAt, headBytes))
}

// check compares the whole structure with its checksum.
func (l layout) check(b []byte) error {
	return l.compare(b[headSumAt:], sumWithout(b, headSumAt, headPrefixSumAt))
}

func (l layout) compare(stored []byte, sum uint32) error {
	if want := binary.LittleEndian.Uint32(stored); sum != want {
		return fmt.Errorf("decode %s: checksum %08x, not %08x: %w", l.name, sum, want, ErrFormat)
	}
	return nil
}

// sumWithout is the checksum of b without the bytes in between.
func sumWithout(b []byte, from, to int) uint32 {
	return crc32.Update(Checksum(b[:from]), castagnoli, b[to:])
}

// reserved returns ErrFormat unless all bytes are zero.
func (l layout) reserved(b []byte) error {
	for i, v := range b {
		if v != 0 {
			return fmt.Errorf("decode %s: reserved byte %d is %#x: %w", l.name, i, v, ErrFormat)
		}
	}
	return nil
}

// must panics with what Validate says of a value that is to be encoded.
func (l layout) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", l.name, err))
	}
}

// blocks is how many blocks bytes take.
func blocks(lengthBytes uint64) int { return int((lengthBytes + BlockBytes - 1) / BlockBytes) }
