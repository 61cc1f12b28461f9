package imagefile

import (
	"encoding/binary"
	"fmt"
	"os"

	"torpor/host"
	"torpor/kernel/openfile"
)

// scanner reads entries in the order of the file. Behind damage it goes on at
// the next place with a right mark and checksum: marks that nobody can guess
// say where entries begin, even where checksums are wrong.
type scanner struct {
	file   *os.File
	header header
	size   int64
	offset int64 // of the next entry

	buf     []byte // content of the file from bufAt
	bufAt   int64
	room    []byte // what buf lies in
	head    [headBytes]byte
	wasted  int64 // bytes whose checksum was wrong
	affords int64 // as many are allowed
}

// scanBytes are read at once.
const scanBytes = 1 << 20

// item is an entry, or a range that is damaged.
type item struct {
	offset, end int64
	state       state
	kind        kind
	head        []byte // of an entry: its first headBytes, until the next call

	starts []int64 // of a damaged range: where entries begin, first of all its own offset
	tail   bool    // of a damaged range: nothing good comes behind it
}

// body returns what the head has of the body.
func (it *item) body() []byte {
	_, n := parseWord(it.head)
	return it.head[entryHeaderBytes:min(len(it.head), entryHeaderBytes+n)]
}

func newScanner(f *os.File, h header, size int64) *scanner {
	// Each damaged entry is read once in vain, and some claim to be long.
	return &scanner{file: f, header: h, size: size, offset: entriesAt, room: make([]byte, min(scanBytes, max(size, 1))), affords: 8*size + 256<<20}
}

// next returns the next item; false at the end.
func (s *scanner) next() (item, bool, error) {
	if s.offset >= s.size {
		return item{}, false, nil
	}
	it, ok, err := s.entry(s.offset)
	if err == nil && !ok {
		it, err = s.damage()
	}
	s.offset = it.end
	return it, err == nil, err
}

// damage finds the end of the damage at the scanner's offset.
func (s *scanner) damage() (item, error) {
	gap := item{offset: s.offset, state: damaged}
	for p := s.offset; ; p += unitBytes {
		b, err := s.bytes(p, entryHeaderBytes)
		if err != nil {
			return gap, err
		}
		if len(b) < entryHeaderBytes {
			if p == s.offset {
				gap.starts = []int64{p}
			}
			gap.end, gap.tail = s.size, true
			return gap, nil
		}
		if p > s.offset {
			if s.header.state(p, binary.LittleEndian.Uint32(b)) == damaged {
				continue
			}
			_, ok, err := s.entry(p)
			if err != nil {
				return gap, err
			}
			if ok {
				gap.end = p
				return gap, nil
			}
		}
		gap.starts = append(gap.starts, p)
	}
}

// entry reads the entry at p; false if there is none that is whole.
func (s *scanner) entry(p int64) (item, bool, error) {
	b, err := s.bytes(p, headBytes)
	if err != nil || len(b) < entryHeaderBytes {
		return item{}, false, err
	}
	st := s.header.state(p, binary.LittleEndian.Uint32(b))
	k, n := parseWord(b)
	it := item{offset: p, end: p + span(n), state: st, kind: k, head: s.head[:copy(s.head[:], b)]}
	if st == damaged || it.end > s.size || !plausible(k, n, st) {
		return item{}, false, nil
	}
	sum := s.header.seed
	for q := p + entryWordAt; q < it.end; {
		b, err := s.bytes(q, int(min(it.end-q, int64(len(s.room)))))
		if err != nil {
			return item{}, false, err
		}
		if len(b) == 0 {
			return item{}, false, nil // the file became shorter
		}
		sum = header{seed: sum}.sum(b)
		q += int64(len(b))
	}
	if sum == binary.LittleEndian.Uint32(it.head[entrySumAt:]) {
		return it, true, nil
	}
	if s.wasted += it.end - p; s.wasted > s.affords {
		return item{}, false, fmt.Errorf("scan entries: too many wrong checksums: %w", host.ErrCorrupt)
	}
	return item{}, false, nil
}

// plausible reports whether there are such entries.
func plausible(k kind, bodyBytes int, s state) bool {
	switch k {
	case kindRecord:
		return true
	case kindWindow:
		return bodyBytes == windowBodyBytes && s != amended
	case kindVoid:
		return s == dead
	}
	return false
}

// bytes returns n bytes at p, at most scanBytes, or what there is of them. They
// are valid until the next call.
func (s *scanner) bytes(p int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.size-p))
	if n <= 0 {
		return nil, nil
	}
	if p < s.bufAt || p+int64(n) > s.bufAt+int64(len(s.buf)) {
		got, err := openfile.ReadAt(int(s.file.Fd()), s.room[:min(int64(len(s.room)), s.size-p)], p)
		if err != nil {
			return nil, fmt.Errorf("scan entries: %w", err)
		}
		s.buf, s.bufAt = s.room[:got], p
	}
	from := p - s.bufAt
	return s.buf[from:min(from+int64(n), int64(len(s.buf)))], nil
}
