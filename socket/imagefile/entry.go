package imagefile

import (
	"encoding/binary"
	"hash/crc32"

	"torpor/socket"
)

// An entry, little endian:
//
//	 0  mark, uint32: unit * 0x9e3779b1 ^ salt if live; with all bits inverted
//	    if dead; with those of 0x0f0f0f0f inverted if amended
//	 4  CRC-32C of what follows, with the file's seed, uint32
//	 8  length of the body * 16 + kind, uint32
//	12  body
//	    zeros up to a multiple of 16
const (
	unitBytes        = 16
	entryHeaderBytes = 12
	entrySumAt       = 4
	entryWordAt      = 8
	unitsMost        = 1 << 32
	headBytes        = entryHeaderBytes + socket.KeyMost // as much of an entry as tells whose it is

	markFactor  = 0x9e3779b1
	markDead    = 0xffffffff
	markAmended = 0x0f0f0f0f
)

// kind is what an entry is.
type kind uint8

const (
	kindRecord kind = 1 // the body is a record of package socket
	kindWindow kind = 2 // of an earlier record: its unit, and the five numbers of socket.Window, uint32 each
	kindVoid   kind = 3 // a range that was damaged
)

const windowBodyBytes = 6 * 4

// state is what an entry's mark says.
type state uint8

const (
	damaged state = iota
	live
	amended // a record whose window is in a later entry
	dead
)

// mark returns the mark of an entry.
func (h header) mark(offset int64, s state) uint32 {
	m := uint32(offset/unitBytes)*markFactor ^ h.salt
	switch s {
	case amended:
		return m ^ markAmended
	case dead:
		return m ^ markDead
	}
	return m
}

// state reads a mark.
func (h header) state(offset int64, mark uint32) state {
	for _, s := range [...]state{live, dead, amended} {
		if h.mark(offset, s) == mark {
			return s
		}
	}
	return damaged
}

// span is how many bytes an entry takes.
func span(bodyBytes int) int64 {
	return (int64(bodyBytes) + entryHeaderBytes + unitBytes - 1) / unitBytes * unitBytes
}

// parseWord returns what the third field says.
func parseWord(b []byte) (kind, int) {
	w := binary.LittleEndian.Uint32(b[entryWordAt:])
	return kind(w & 15), int(w >> 4)
}

// openEntry appends room for an entry's header; seal completes the entry behind it.
func openEntry(b []byte) []byte { return append(b, make([]byte, entryHeaderBytes)...) }

// seal completes the entry that begins at b[start:] and will be at an offset of
// the file.
func (h header) seal(b []byte, start int, offset int64, k kind, s state) []byte {
	bodyBytes := len(b) - start - entryHeaderBytes
	b = append(b, make([]byte, span(bodyBytes)-int64(len(b)-start))...)
	e := b[start:]
	binary.LittleEndian.PutUint32(e, h.mark(offset, s))
	binary.LittleEndian.PutUint32(e[entryWordAt:], uint32(bodyBytes)<<4|uint32(k))
	binary.LittleEndian.PutUint32(e[entrySumAt:], h.sum(e[entryWordAt:]))
	return b
}

func (h header) sum(b []byte) uint32 { return crc32.Update(h.seed, castagnoli, b) }

// appendWindow appends the body of a window.
func appendWindow(b []byte, record uint32, w socket.Window) []byte {
	for _, v := range [...]uint32{record, uint32(w.SentAt), w.Send, w.Maximum, w.Receive, uint32(w.Updated)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// parseWindow takes the body of a window apart, which has windowBodyBytes.
func parseWindow(b []byte) (record uint32, w socket.Window) {
	at := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	return at(0), socket.Window{SentAt: socket.Sequence(at(1)), Send: at(2), Maximum: at(3), Receive: at(4), Updated: socket.Sequence(at(5))}
}
