package unique

import (
	"bytes"
	"encoding/binary"
	"math"

	"torpor/kernel/proc"
)

// space reads the memory of a process. What is there was written by the
// program: an address that leads nowhere is not an error but a value that
// proves nothing.
//
// It keeps the pages that were looked at last, because many small things are
// read that lie close together; the process is stopped, so they stay true.
type space struct {
	readAt func(b []byte, addr proc.Addr) error
	pages  *[keptPages]page
}

// keptPages is how many pages are kept, each in the place that its number gives.
const keptPages = 1 << 10

type page struct {
	addr  uint64
	known bool
	bytes *[proc.PageBytes]byte
}

func newSpace(readAt func(b []byte, addr proc.Addr) error) space {
	return space{readAt, new([keptPages]page)}
}

// read fills b and reports whether all of it is there.
func (s space) read(b []byte, addr uint64) bool {
	if addr > math.MaxInt64-uint64(len(b)) {
		return false
	}
	if start := addr % proc.PageBytes; start+uint64(len(b)) <= proc.PageBytes {
		p := s.page(addr - start)
		return p != nil && copy(b, p[start:]) == len(b)
	}
	return s.readAt(b, proc.Addr(addr)) == nil
}

// page returns a page, nil if it can not be read.
func (s space) page(addr uint64) *[proc.PageBytes]byte {
	p := &s.pages[addr/proc.PageBytes%keptPages]
	if p.known && p.addr == addr {
		return p.bytes
	}
	if p.bytes == nil || !p.known {
		p.bytes = new([proc.PageBytes]byte)
	}
	p.addr, p.known = addr, s.readAt(p.bytes[:], proc.Addr(addr)) == nil
	if !p.known {
		return nil
	}
	return p.bytes
}

// words reads n 64-bit words, or nil.
func (s space) words(addr uint64, n int) []uint64 {
	b := make([]byte, 8*n)
	if !s.read(b, addr) {
		return nil
	}
	w := make([]uint64, n)
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return w
}

// word reads one word, 0 if there is none.
func (s space) word(addr uint64) uint64 {
	var b [8]byte
	if !s.read(b[:], addr) {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

// uint32 reads a half word, 0 if there is none.
func (s space) uint32(addr uint64) uint32 {
	var b [4]byte
	if !s.read(b[:], addr) {
		return 0
	}
	return binary.LittleEndian.Uint32(b[:])
}

// isString reports whether a NUL-terminated string is at addr.
func (s space) isString(addr uint64, want string) bool {
	b := make([]byte, len(want)+1)
	return s.read(b, addr) && string(b[:len(want)]) == want && b[len(want)] == 0
}

// text reads a NUL-terminated string, or what fits into its most bytes and one
// page.
func (s space) text(addr uint64, most int) string {
	b := make([]byte, min(most, int(proc.PageBytes-addr%proc.PageBytes)))
	if !s.read(b, addr) {
		return ""
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}
