package devicetest

import (
	"bytes"
	"fmt"
	"slices"

	"torpor/block"
)

// testReopen closes and opens a device between random operations.
func (s *suite) testReopen() {
	m := s.newModel()
	for range 5 {
		for step := range s.o.Steps / 10 {
			if what, err := s.step(m); err != nil {
				s.Fatalf("step %d: %s: %v", step, what, err)
			}
		}
		s.d = s.o.Reopen(s.TB, s.d)
		if info := s.d.Info(); info != s.info {
			s.Fatalf("became %+v, was %+v", info, s.info)
		}
		s.check(m)
	}
	s.end()
}

// history is which contents a piece of a device may have after a crash: those
// it had since it was last made durable.
type history struct {
	unitBytes int64
	contents  [][][]byte // by unit; the last one is what it has now
}

func newHistory(unitBytes int64, content []byte) *history {
	h := &history{unitBytes: unitBytes}
	for u := range slices.Chunk(content, int(unitBytes)) {
		h.contents = append(h.contents, [][]byte{bytes.Clone(u)})
	}
	return h
}

// change notes what was written, durably or not. Units are whole.
func (h *history) change(b []byte, off block.Offset, durable bool) {
	for i := int64(off) / h.unitBytes; len(b) > 0; i++ {
		if durable {
			h.contents[i] = nil
		}
		h.contents[i] = append(h.contents[i], bytes.Clone(b[:h.unitBytes]))
		b = b[h.unitBytes:]
	}
}

// flush forgets what was before.
func (h *history) flush() {
	for i, c := range h.contents {
		h.contents[i] = c[len(c)-1:]
	}
}

// check compares what is there after a crash, which is durable then or becomes
// so as anything that is there does. Each block may be of another time.
func (h *history) check(b []byte, blockBytes int64) error {
	for i, may := range h.contents {
		unit := b[int64(i)*h.unitBytes:][:h.unitBytes]
		for at := int64(0); at < h.unitBytes; at += blockBytes {
			is := unit[at : at+blockBytes]
			if !slices.ContainsFunc(may, func(c []byte) bool { return bytes.Equal(c[at:at+blockBytes], is) }) {
				return fmt.Errorf("block at %d is none of %d contents that it may have", int64(i)*h.unitBytes+at, len(may))
			}
		}
		h.contents[i] = [][]byte{bytes.Clone(unit)}
	}
	return nil
}

// testCrash ends a device in disorder between random operations: what is left
// is what was durable, and some of the rest.
func (s *suite) testCrash() {
	const rounds = 12
	s.area = min(s.area, 1<<20)
	unit := max(int64(s.info.BlockBytes), 512)
	h := newHistory(unit, make([]byte, s.area))
	s.must(s.d.Zero(block.Range{LenBytes: s.area}, block.FUA))
	for round := range rounds {
		for range s.rand.IntN(s.o.Steps / 10) {
			s.must(s.crashStep(h))
		}
		s.d = s.o.Crash(s.TB, s.d, s.rand)
		b := s.memory(s.area)
		s.must(s.d.ReadAt(b, 0))
		if err := h.check(b, int64(s.info.BlockBytes)); err != nil {
			s.Fatalf("after crash %d: %v", round+1, err)
		}
		// What a crash left need not be durable, but what was read here must stay.
		s.must(s.d.Flush())
	}
	s.end()
}

// crashStep makes one random operation on whole units.
func (s *suite) crashStep(h *history) error {
	units := s.area / h.unitBytes
	n := 1 + s.rand.Int64N(min(units, 40))
	r := block.Range{Start: block.Offset(s.rand.Int64N(units-n+1) * h.unitBytes), LenBytes: n * h.unitBytes}
	flags := []block.Flags{0, 0, 0, block.FUA}[s.rand.IntN(4)]
	kind := s.rand.IntN(8)
	switch {
	case kind == 0:
		if err := s.d.Flush(); err != nil {
			return err
		}
		h.flush()
		return nil
	case kind == 1 && s.info.Discards:
		h.change(make([]byte, r.LenBytes), r.Start, flags&block.FUA != 0)
		return s.d.Discard(r, flags)
	case kind == 2:
		h.change(make([]byte, r.LenBytes), r.Start, flags&block.FUA != 0)
		return s.d.Zero(r, flags)
	case kind == 3:
		b := s.noise(r.LenBytes)
		h.change(b, r.Start, flags&block.FUA != 0)
		return block.WriteVector(s.d, s.cut(b), r.Start, flags)
	}
	b := s.noise(r.LenBytes)
	h.change(b, r.Start, flags&block.FUA != 0)
	return s.d.WriteAt(b, r.Start, flags)
}
