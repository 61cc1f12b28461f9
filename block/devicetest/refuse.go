package devicetest

import (
	"errors"
	"testing"

	"torpor/block"
)

// call is a request, by name.
type call struct {
	name    string
	changes bool
	do      func(d block.Device, r block.Range) error
}

// calls are all requests for a range.
var calls = []call{
	{"read", false, func(d block.Device, r block.Range) error {
		return d.ReadAt(make([]byte, max(0, r.LenBytes)), r.Start)
	}},
	{"read vector", false, func(d block.Device, r block.Range) error {
		return block.ReadVector(d, [][]byte{make([]byte, max(0, r.LenBytes))}, r.Start)
	}},
	{"started read", false, func(d block.Device, r block.Range) error {
		return block.Wait(func(done func(error)) { block.StartRead(d, make([]byte, max(0, r.LenBytes)), r.Start, done) })
	}},
	{"write", true, func(d block.Device, r block.Range) error {
		return d.WriteAt(make([]byte, max(0, r.LenBytes)), r.Start, 0)
	}},
	{"write vector", true, func(d block.Device, r block.Range) error {
		return block.WriteVector(d, [][]byte{make([]byte, max(0, r.LenBytes))}, r.Start, block.FUA)
	}},
	{"started write", true, func(d block.Device, r block.Range) error {
		return block.Wait(func(done func(error)) {
			block.StartWrite(d, [][]byte{make([]byte, max(0, r.LenBytes))}, r.Start, block.FUA, done)
		})
	}},
	{"zero", true, func(d block.Device, r block.Range) error { return d.Zero(r, 0) }},
	{"discard", true, func(d block.Device, r block.Range) error { return d.Discard(r, 0) }},
	{"status", false, func(d block.Device, r block.Range) error {
		_, err := d.Status(r)
		return err
	}},
}

func (s *suite) testInfo() {
	n := s.info.BlockBytes
	if n < 1 || n&(n-1) != 0 {
		s.Errorf("block of %d bytes", n)
	}
	if s.info.SizeBytes%int64(n) != 0 {
		s.Errorf("size of %d bytes in blocks of %d", s.info.SizeBytes, n)
	}
	if p := s.info.PreferredBytes; p < n || p%n != 0 {
		s.Errorf("prefers %d bytes in blocks of %d", p, n)
	}
	if s.info.ReadOnly {
		s.Error("read-only: that is for RunReadOnly")
	}
	s.end()
}

// testRefusals makes requests that do not fit the device, which change nothing.
func (s *suite) testRefusals() {
	m := s.newModel()
	b := s.noise(s.area)
	s.must(s.d.WriteAt(b, 0, 0))
	m.set(b, 0)
	n := int64(s.info.BlockBytes)
	size := s.info.SizeBytes / n * n
	for _, c := range calls {
		for _, r := range []block.Range{
			{Start: block.Offset(size), LenBytes: n},
			{Start: block.Offset(size - n), LenBytes: 2 * n},
			{Start: block.Offset(-n), LenBytes: n},
			{Start: block.Offset(-n), LenBytes: 2 * n},
			{Start: 1 << 62, LenBytes: n},
		} {
			if err := c.do(s.d, r); !errors.Is(err, block.ErrRange) {
				s.Errorf("%s %d+%d of %d: %v, not ErrRange", c.name, r.Start, r.LenBytes, size, err)
			}
		}
		for _, r := range []block.Range{{}, {Start: block.Offset(n)}, {Start: block.Offset(size)}} {
			if err := c.do(s.d, r); err != nil {
				s.Errorf("empty %s at %d: %v", c.name, r.Start, err)
			}
		}
		if n > 1 {
			s.refuseUnaligned(c, n)
		}
	}
	s.check(m)
	s.end()
}

func (s *suite) refuseUnaligned(c call, n int64) {
	for _, r := range []block.Range{
		{Start: 1, LenBytes: n},
		{Start: block.Offset(n / 2), LenBytes: n},
		{LenBytes: 1},
		{LenBytes: n / 2},
		{Start: block.Offset(n), LenBytes: n + n/2},
	} {
		if err := c.do(s.d, r); !errors.Is(err, block.ErrAlignment) {
			s.Errorf("%s %d+%d: %v, not ErrAlignment", c.name, r.Start, r.LenBytes, err)
		}
	}
	v, ok := s.d.(block.VectorDevice)
	if !ok {
		return
	}
	halves := [][]byte{make([]byte, n/2), make([]byte, n/2)}
	if err := v.WriteVectorAt(halves, 0, 0); !errors.Is(err, block.ErrAlignment) {
		s.Errorf("write of halves of a block: %v, not ErrAlignment", err)
	}
	if err := v.ReadVectorAt(halves, 0); !errors.Is(err, block.ErrAlignment) {
		s.Errorf("read of halves of a block: %v, not ErrAlignment", err)
	}
}

// RunReadOnly tests a device that is read-only, and closes it.
func RunReadOnly(t *testing.T, d block.Device) {
	s := begin(t, d, Options{})
	if !s.info.ReadOnly {
		t.Error("says that it is not read-only")
	}
	before := s.memory(s.area)
	s.must(d.ReadAt(before, 0))
	m := &model{before, make([]bool, s.area)}
	for _, c := range calls {
		err := c.do(d, s.place(64<<10))
		if c.changes && !errors.Is(err, block.ErrReadOnly) {
			t.Errorf("%s: %v, not ErrReadOnly", c.name, err)
		}
		if !c.changes && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	s.must(s.checkStatus(m, block.Range{LenBytes: s.area}))
	s.check(m)
	s.must(d.Flush())
	s.end()
}
