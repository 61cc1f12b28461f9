package imagefile

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"torpor/host"
)

// A header, 64 bytes, little endian:
//
//	 0  magic "torporSI"
//	 8  version, uint32
//	12  length of the header in bytes, uint32
//	16  CRC-32C of the header with zero here, uint32
//	20  zero, uint32
//	24  salt of marks, uint32
//	28  seed of the checksums of entries, uint32
//	32  zero
//
// It is there twice, since all of the file depends on it.
const (
	magic        = "torporSI"
	version      = 1
	headerBytes  = 64
	headerSumAt  = 16
	headerSumEnd = headerSumAt + 4
	headerCopyAt = entriesAt - headerBytes
	entriesAt    = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what of the header differs between files.
type header struct{ salt, seed uint32 }

// newHeader makes one that nobody can guess.
func newHeader() header {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return header{binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:])}
}

// encode returns what is before the entries.
func (h header) encode() []byte {
	b := make([]byte, entriesAt)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], version)
	binary.LittleEndian.PutUint32(b[12:], headerBytes)
	binary.LittleEndian.PutUint32(b[24:], h.salt)
	binary.LittleEndian.PutUint32(b[28:], h.seed)
	binary.LittleEndian.PutUint32(b[headerSumAt:], crc32.Checksum(b[:headerBytes], castagnoli))
	copy(b[headerCopyAt:], b[:headerBytes])
	return b
}

// decodeHeader decodes what is before the entries. Whole reports that it is as
// encode made it; otherwise one of the two headers is damaged.
func decodeHeader(b []byte) (h header, whole bool, err error) {
	if len(b) < entriesAt {
		return header{}, false, fmt.Errorf("read header: file has %d bytes: %w", len(b), host.ErrCorrupt)
	}
	h, err = decodeOneHeader(b[:headerBytes])
	if err != nil {
		second, secondErr := decodeOneHeader(b[headerCopyAt:entriesAt])
		if secondErr != nil {
			return header{}, false, err
		}
		h = second
	}
	return h, string(h.encode()) == string(b[:entriesAt]), nil
}

func decodeOneHeader(b []byte) (header, error) {
	if string(b[:len(magic)]) != magic {
		return header{}, fmt.Errorf("read header: no socket image: %w", host.ErrCorrupt)
	}
	sum := crc32.Checksum(b[:headerSumAt], castagnoli)
	sum = crc32.Update(sum, castagnoli, make([]byte, headerSumEnd-headerSumAt))
	sum = crc32.Update(sum, castagnoli, b[headerSumEnd:headerBytes])
	if sum != binary.LittleEndian.Uint32(b[headerSumAt:]) {
		return header{}, fmt.Errorf("read header: checksum differs: %w", host.ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return header{}, fmt.Errorf("read header: version %d, this torpor reads %d: %w", v, version, host.ErrUnsupported)
	}
	h := header{binary.LittleEndian.Uint32(b[24:]), binary.LittleEndian.Uint32(b[28:])}
	if string(h.encode()[:headerBytes]) != string(b) {
		return header{}, fmt.Errorf("read header: unknown fields: %w", host.ErrCorrupt)
	}
	return h, nil
}
