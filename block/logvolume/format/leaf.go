package format

import (
	"encoding/binary"
	"fmt"
)

// entryBytes is how long an entry is in leaves and index blocks.
const entryBytes = 8

// EncodeLeaf writes a leaf to b, one block: the entries and nothing else. A leaf
// has no checksum of its own, for the entry that says where it is has one.
func EncodeLeaf(b []byte, entries *[LeafEntries]Entry) {
	b = b[:BlockBytes]
	for i, e := range entries {
		binary.LittleEndian.PutUint64(b[i*entryBytes:], uint64(e))
	}
}

// DecodeLeaf reads a leaf from a block that was compared with its checksum
// before. Entries without a location that are neither Unmapped nor Hole are
// ErrFormat.
func DecodeLeaf(b []byte, entries *[LeafEntries]Entry) error {
	if len(b) != BlockBytes {
		return fmt.Errorf("decode leaf: %d bytes: %w", len(b), ErrFormat)
	}
	for i := range entries {
		e := Entry(binary.LittleEndian.Uint64(b[i*entryBytes:]))
		if !e.Mapped() && e != Unmapped && e != Hole {
			return fmt.Errorf("decode leaf: entry %d is %#x: %w", i, uint64(e), ErrFormat)
		}
		entries[i] = e
	}
	return nil
}

// EncodeIndex writes an index block to b, one block: up to 512 entries of
// neighbouring parts of the manifest, then zeros.
func EncodeIndex(b []byte, entries []Entry) {
	if len(entries) > LeafEntries {
		panic(fmt.Sprintf("encode index block of %d entries", len(entries)))
	}
	b = b[:BlockBytes]
	for i, e := range entries {
		binary.LittleEndian.PutUint64(b[i*entryBytes:], uint64(e))
	}
	clear(b[len(entries)*entryBytes:])
}

// DecodeIndex fills entries from an index block that was compared with its
// checksum before. It is ErrFormat if the block has not just as many, all mapped.
func DecodeIndex(b []byte, entries []Entry) error {
	if len(b) != BlockBytes || len(entries) > LeafEntries {
		return fmt.Errorf("decode index block: %d entries in %d bytes: %w", len(entries), len(b), ErrFormat)
	}
	for i := range LeafEntries {
		e := Entry(binary.LittleEndian.Uint64(b[i*entryBytes:]))
		if i < len(entries) && e.Mapped() {
			entries[i] = e
		} else if i < len(entries) || e != Unmapped {
			return fmt.Errorf("decode index block: entry %d of %d is %#x: %w", i, len(entries), uint64(e), ErrFormat)
		}
	}
	return nil
}
