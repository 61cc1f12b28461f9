package devicetest

import (
	"bytes"
	"fmt"

	"torpor/block"
)

// model is what the area of a device should hold.
type model struct {
	content []byte
	unknown []bool // bytes that were discarded on a device that does not say what they are then
}

// newModel zeroes the area.
func (s *suite) newModel() *model {
	s.Helper()
	s.must(s.d.Zero(block.Range{LenBytes: s.area}, 0))
	return &model{make([]byte, s.area), make([]bool, s.area)}
}

func (m *model) set(b []byte, off block.Offset) {
	copy(m.content[off:], b)
	clear(m.unknown[off : off+block.Offset(len(b))])
}

func (m *model) zero(r block.Range) {
	clear(m.content[r.Start:r.End()])
	clear(m.unknown[r.Start:r.End()])
}

func (m *model) discard(r block.Range, reads0 bool) {
	m.zero(r)
	for i := r.Start; i < r.End(); i++ {
		m.unknown[i] = !reads0
	}
}

// compare says where b, read from off, is not what it should be.
func (m *model) compare(b []byte, off block.Offset) error {
	if bytes.Equal(b, m.content[off:off+block.Offset(len(b))]) {
		return nil
	}
	for i, is := range b {
		at := off + block.Offset(i)
		if is != m.content[at] && !m.unknown[at] {
			return fmt.Errorf("byte at %d is %#x, not %#x", at, is, m.content[at])
		}
	}
	return nil
}

// check reads the whole area.
func (s *suite) check(m *model) {
	s.Helper()
	b := s.memory(s.area)
	s.must(s.d.ReadAt(b, 0))
	if err := m.compare(b, 0); err != nil {
		s.Fatal(err)
	}
}

// testRandom compares a device with a model after each of many operations.
func (s *suite) testRandom() {
	m := s.newModel()
	s.check(m)
	for step := range s.o.Steps {
		if what, err := s.step(m); err != nil {
			s.Fatalf("step %d: %s: %v", step, what, err)
		}
	}
	s.check(m)
	s.end()
}

// step makes one random operation.
func (s *suite) step(m *model) (what string, err error) {
	r := s.place([]int64{1, 16 << 10, 256 << 10, 1 << 20}[s.rand.IntN(4)])
	flags := []block.Flags{0, 0, 0, block.FUA}[s.rand.IntN(4)]
	at := fmt.Sprintf("%d+%d flags %d", r.Start, r.LenBytes, flags)
	switch s.rand.IntN(12) {
	case 0, 1, 2:
		b := s.noise(r.LenBytes)
		m.set(b, r.Start)
		return "write " + at, s.d.WriteAt(b, r.Start, flags)
	case 3, 4:
		b := s.noise(r.LenBytes)
		m.set(b, r.Start)
		return "write vector " + at, block.WriteVector(s.d, s.cut(b), r.Start, flags)
	case 5:
		m.zero(r)
		return "zero " + at, s.d.Zero(r, flags|[]block.Flags{0, block.KeepAllocated}[s.rand.IntN(2)])
	case 6:
		m.discard(r, s.info.Discards)
		return "discard " + at, s.d.Discard(r, flags)
	case 7:
		return "flush", s.d.Flush()
	case 8, 9:
		return "status " + at, s.checkStatus(m, r)
	case 10:
		b := s.noise(r.LenBytes)
		if err := block.ReadVector(s.d, s.cut(b), r.Start); err != nil {
			return "read vector " + at, err
		}
		return "read vector " + at, m.compare(b, r.Start)
	default:
		b := s.noise(r.LenBytes)
		if err := s.d.ReadAt(b, r.Start); err != nil {
			return "read " + at, err
		}
		return "read " + at, m.compare(b, r.Start)
	}
}

// checkStatus compares the extents of a range with what it holds.
func (s *suite) checkStatus(m *model, r block.Range) error {
	extents, err := s.d.Status(r)
	if err != nil {
		return err
	}
	at := r.Start
	for _, e := range extents {
		if e.Start != at || e.LenBytes <= 0 || e.End() > r.End() {
			return fmt.Errorf("extent %d+%d does not follow %d", e.Start, e.LenBytes, at)
		}
		if e.LenBytes%int64(s.info.BlockBytes) != 0 {
			return fmt.Errorf("extent %d+%d is not of whole blocks", e.Start, e.LenBytes)
		}
		at = e.End()
		if e.Kind == block.Data {
			continue
		}
		if err := m.compare(make([]byte, e.LenBytes), e.Start); err != nil {
			return fmt.Errorf("extent %d+%d of kind %d: as zeros: %w", e.Start, e.LenBytes, e.Kind, err)
		}
	}
	if at != r.End() {
		return fmt.Errorf("extents end at %d, not %d", at, r.End())
	}
	return nil
}

// testBig makes requests of all that is used.
func (s *suite) testBig() {
	m := s.newModel()
	for _, flags := range []block.Flags{0, block.FUA} {
		b := s.noise(s.area)
		s.must(s.d.WriteAt(b, 0, flags))
		m.set(b, 0)
		s.check(m)
		b = s.noise(s.area)
		s.must(block.WriteVector(s.d, s.single(b), 0, flags))
		m.set(b, 0)
		s.check(m)
		got := s.noise(s.area)
		s.must(block.ReadVector(s.d, s.single(got), 0))
		s.must(m.compare(got, 0))
	}
	s.must(s.checkStatus(m, block.Range{LenBytes: s.area}))
	s.must(s.d.Discard(block.Range{LenBytes: s.area}, block.FUA))
	m.discard(block.Range{LenBytes: s.area}, s.info.Discards)
	s.check(m)
	s.end()
}

// single cuts b into buffers of 1 KiB, or of one block: more than one call of
// the kernel takes.
func (s *suite) single(b []byte) [][]byte {
	n := max(s.info.BlockBytes, 1024)
	var p [][]byte
	for len(b) > 0 {
		k := min(n, len(b))
		p, b = append(p, b[:k]), b[k:]
	}
	return p
}

// testEnds writes the first and the last block of the device.
func (s *suite) testEnds() {
	n := int64(s.info.BlockBytes)
	last := block.Offset(s.info.SizeBytes/n*n - n)
	for _, off := range []block.Offset{0, last} {
		b := s.noise(n)
		s.must(s.d.WriteAt(b, off, 0))
		got := s.memory(n)
		s.must(s.d.ReadAt(got, off))
		if !bytes.Equal(b, got) {
			s.Errorf("block at %d is not what was written", off)
		}
		s.must(s.d.Zero(block.Range{Start: off, LenBytes: n}, 0))
		s.must(s.d.ReadAt(got, off))
		if !bytes.Equal(got, make([]byte, n)) {
			s.Errorf("block at %d is not zeros", off)
		}
	}
	s.end()
}
