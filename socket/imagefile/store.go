package imagefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"slices"
	"sync"

	"torpor/host"
	"torpor/kernel/openfile"
	"torpor/socket"
)

// store is an open file and its index, without locks. Compaction makes another.
type store struct {
	file   *os.File
	fd     int
	header header
	seed   maphash.Seed
	index  index
	end    int64 // of the last entry
	used   int64 // bytes of living entries
	broken error // of a write that was not undone

	scratch []byte
	hashes  []uint64
}

func newStore(f *os.File, h header, seed maphash.Seed) *store {
	return &store{file: f, fd: int(f.Fd()), header: h, seed: seed, end: entriesAt}
}

// scratchMost bytes of scratch are kept for the next batch.
const scratchMost = 1 << 20

func (s *store) hash(k *socket.Key) uint64 {
	var buf [socket.KeyMost]byte
	return maphash.Bytes(s.seed, k.Append(buf[:0]))
}

// place is where a key's entries are.
type place struct {
	slot    int    // in the table of the index
	unit    uint32 // where the index points to
	record  uint32 // the unit of the record: another if there is a window
	bytes   int    // of the record's body
	span    int64  // of all its entries
	window  socket.Window
	damaged bool // something of it can not be read; it is the key's but for a chance of 1 in 2^40
}

func (p *place) hasWindow() bool { return p.unit != p.record }

// find looks a key up.
func (s *store) find(k *socket.Key, hash uint64) (place, bool, error) {
	t := s.index.table(hash)
	for i := t.first(hash); i >= 0; i = t.next(i) {
		p, same, err := s.compare(t.slots[i].unit(), k)
		if err != nil || same {
			p.slot = i
			return p, err == nil, err
		}
	}
	return place{}, false, nil
}

// compare reports whether an entry of the index is the key's. What is damaged is.
func (s *store) compare(unit uint32, k *socket.Key) (place, bool, error) {
	p := place{unit: unit, record: unit}
	var buf [headBytes]byte
	kind, body, err := s.head(unit, &buf)
	if err != nil {
		return p, false, err
	}
	if kind == kindWindow {
		if !s.header.wholeWindow(&buf) {
			p.damaged = true
			return p, true, nil
		}
		p.span = span(windowBodyBytes)
		p.record, p.window = parseWindow(body)
		if kind, body, err = s.head(p.record, &buf); err != nil {
			return p, false, err
		}
	}
	if kind == kindRecord {
		_, p.bytes = parseWord(buf[:])
		p.span += span(p.bytes)
		if k.Begins(body) {
			return p, true, nil
		}
		if _, err := s.record(p); err == nil {
			return p, false, nil // another key with the same hash
		} else if !errors.Is(err, host.ErrCorrupt) {
			return p, false, err
		}
	}
	p.damaged = true
	return p, true, nil
}

// head reads the beginning of a living entry, and returns what of the body is
// in it. Kind 0 is none.
func (s *store) head(unit uint32, buf *[headBytes]byte) (kind, []byte, error) {
	offset := int64(unit) * unitBytes
	n, err := openfile.ReadAt(s.fd, buf[:], offset)
	if err != nil {
		return 0, nil, err
	}
	clear(buf[n:])
	k, bodyBytes := parseWord(buf[:])
	st := s.header.state(offset, binary.LittleEndian.Uint32(buf[:]))
	if st != live && st != amended || !plausible(k, bodyBytes, st) || offset+span(bodyBytes) > s.end {
		return 0, nil, nil
	}
	return k, buf[entryHeaderBytes:min(headBytes, entryHeaderBytes+bodyBytes)], nil
}

// key reads the key of an entry of the index.
func (s *store) key(unit uint32) (socket.Key, error) {
	var buf [headBytes]byte
	kind, body, err := s.head(unit, &buf)
	if kind == kindWindow && s.header.wholeWindow(&buf) {
		unit, _ = parseWindow(body)
		kind, body, err = s.head(unit, &buf)
	}
	if err == nil && kind != kindRecord {
		err = fmt.Errorf("entry at %d: %w", int64(unit)*unitBytes, host.ErrCorrupt)
	}
	if err != nil {
		return socket.Key{}, err
	}
	return socket.DecodeKey(body)
}

// whole reports whether the checksum of an entry is right.
func (h header) whole(entry []byte) bool {
	return h.sum(entry[entryWordAt:]) == binary.LittleEndian.Uint32(entry[entrySumAt:])
}

// windowRoom is for checksums of what is on a stack, which would move to the
// heap.
var windowRoom = sync.Pool{New: func() any { return new([headBytes]byte) }}

// wholeWindow reports whether the checksum of a window is right.
func (h header) wholeWindow(head *[headBytes]byte) bool {
	room := windowRoom.Get().(*[headBytes]byte)
	defer windowRoom.Put(room)
	*room = *head
	return h.whole(room[:span(windowBodyBytes)])
}

// record reads the body of a record.
func (s *store) record(p place) ([]byte, error) {
	b := make([]byte, span(p.bytes))
	n, err := openfile.ReadAt(s.fd, b, int64(p.record)*unitBytes)
	if err != nil {
		return nil, err
	}
	if k, bodyBytes := parseWord(b); n < len(b) || k != kindRecord || bodyBytes != p.bytes || !s.header.whole(b) {
		return nil, fmt.Errorf("read entry at %d: checksum differs: %w", int64(p.record)*unitBytes, host.ErrCorrupt)
	}
	return b[entryHeaderBytes:][:p.bytes], nil
}

func (s *store) get(k *socket.Key) (socket.Spec, error) {
	p, found, err := s.find(k, s.hash(k))
	switch {
	case err != nil:
		return socket.Spec{}, err
	case !found:
		return socket.Spec{}, host.ErrNotFound
	case p.damaged:
		return socket.Spec{}, fmt.Errorf("entry at %d: %w", int64(p.unit)*unitBytes, host.ErrCorrupt)
	}
	body, err := s.record(p)
	if err != nil {
		return socket.Spec{}, err
	}
	spec, err := socket.Decode(body)
	if err != nil {
		return socket.Spec{}, err
	}
	if spec.Key != *k {
		return socket.Spec{}, fmt.Errorf("entry at %d is of another key: %w", int64(p.unit)*unitBytes, host.ErrCorrupt)
	}
	if p.hasWindow() {
		spec.Window = p.window
	}
	return spec, nil
}

// add adds records with one write: all or none.
func (s *store) add(specs []*socket.Spec) error {
	if err := s.refuse(specs); err != nil {
		return err
	}
	b, offset := s.scratch[:0], s.end
	for _, spec := range specs {
		start := len(b)
		b = spec.Append(openEntry(b))
		b = s.header.seal(b, start, offset+int64(start), kindRecord, live)
	}
	if err := s.append(b); err != nil {
		return err
	}
	for i, start := 0, int64(0); i < len(specs); i++ {
		_, n := parseWord(b[start:])
		s.index.insert(s.hashes[i], uint32((offset+start)/unitBytes))
		start += span(n)
	}
	s.used += int64(len(b))
	return nil
}

// refuse says why records can not be added, and hashes their keys.
func (s *store) refuse(specs []*socket.Spec) error {
	s.hashes = s.hashes[:0]
	for _, spec := range specs {
		if err := spec.Validate(); err != nil {
			return err
		}
		hash := s.hash(&spec.Key)
		if _, found, err := s.find(&spec.Key, hash); err != nil {
			return err
		} else if found {
			return fmt.Errorf("%s to %s: %w", spec.Local, spec.Remote, host.ErrExists)
		}
		s.hashes = append(s.hashes, hash)
	}
	if len(specs) < 2 {
		return nil
	}
	sorted := slices.Clone(s.hashes)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) == len(specs) {
		return nil
	}
	seen := map[socket.Key]bool{}
	for _, spec := range specs {
		if seen[spec.Key] {
			return fmt.Errorf("%s to %s is there twice: %w", spec.Local, spec.Remote, host.ErrExists)
		}
		seen[spec.Key] = true
	}
	return nil
}

// append writes entries to the end of the file: all, or none and an error.
func (s *store) append(b []byte) error {
	if s.scratch = b; cap(b) > scratchMost {
		s.scratch = nil
	}
	if s.broken != nil {
		return s.broken
	}
	if s.end+int64(len(b)) > unitsMost*unitBytes {
		return fmt.Errorf("file would have more than 64 GiB: %w", host.ErrRefused)
	}
	if _, err := s.file.WriteAt(b, s.end); err != nil {
		if undo := s.file.Truncate(s.end); undo != nil {
			s.broken = fmt.Errorf("open the file again, an earlier write was not undone: %w: %w", undo, err)
		}
		return err
	}
	s.end += int64(len(b))
	return nil
}

// setMark changes the state of an entry, at once.
func (s *store) setMark(unit uint32, st state) error {
	if s.broken != nil {
		return s.broken
	}
	offset := int64(unit) * unitBytes
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], s.header.mark(offset, st))
	if _, err := s.file.WriteAt(b[:], offset); err != nil {
		s.broken = fmt.Errorf("open the file again, an entry was not marked: %w", err)
		return err
	}
	return nil
}

func (s *store) remove(k *socket.Key) error {
	hash := s.hash(k)
	p, found, err := s.find(k, hash)
	if err != nil {
		return err
	}
	if !found {
		return host.ErrNotFound
	}
	// The record first: a window without one is nothing.
	if err := s.setMark(p.record, dead); err != nil {
		return err
	}
	if p.hasWindow() {
		if err := s.setMark(p.unit, dead); err != nil {
			return err
		}
	}
	s.index.remove(hash, p.slot)
	s.used = max(0, s.used-p.span) // of a damaged one the span may be wrong
	return nil
}

// clear gives the space of all entries back, if none lives.
func (s *store) clear() {
	if s.index.count == 0 && s.end > entriesAt && s.broken == nil && s.file.Truncate(entriesAt) == nil {
		s.end, s.used = entriesAt, 0
	}
}

func (s *store) setWindow(k *socket.Key, w socket.Window) error {
	hash := s.hash(k)
	p, found, err := s.find(k, hash)
	switch {
	case err != nil:
		return err
	case !found:
		return host.ErrNotFound
	case p.damaged:
		return fmt.Errorf("entry at %d: %w", int64(p.unit)*unitBytes, host.ErrCorrupt)
	}
	unit := uint32(s.end / unitBytes)
	b := appendWindow(openEntry(s.scratch[:0]), p.record, w)
	b = s.header.seal(b, 0, s.end, kindWindow, live)
	if err := s.append(b); err != nil {
		return err
	}
	// A record that is amended is lost without its window, never restored with the old one.
	old := amended
	if p.hasWindow() {
		old = dead
		s.used -= span(windowBodyBytes)
	}
	s.used += span(windowBodyBytes)
	s.index.table(hash).slots[p.slot] = newSlot(hash, unit)
	return s.setMark(p.unit, old)
}
