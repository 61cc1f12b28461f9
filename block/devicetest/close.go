package devicetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"

	"torpor/block"
)

// testClose closes a device and goes on.
func (s *suite) testClose() {
	s.must(s.d.WriteAt(s.noise(int64(s.info.BlockBytes)), 0, 0))
	s.must(s.d.Flush())
	s.end()
	for _, c := range calls {
		if err := c.do(s.d, block.Range{LenBytes: int64(s.info.BlockBytes)}); !errors.Is(err, block.ErrClosed) {
			s.Errorf("%s after the end: %v, not ErrClosed", c.name, err)
		}
	}
	if err := s.d.Flush(); !errors.Is(err, block.ErrClosed) {
		s.Errorf("flush after the end: %v, not ErrClosed", err)
	}
	if err := s.d.Close(); !errors.Is(err, block.ErrClosed) {
		s.Errorf("closed again: %v, not ErrClosed", err)
	}
	if info := s.d.Info(); info.BlockBytes != s.info.BlockBytes {
		s.Errorf("is something else after the end: %+v", info)
	}
}

// testCloseWaits closes a device that is in use: each request is done, or
// refused because the device is closed, and none is done after a refused one.
func (s *suite) testCloseWaits() {
	var started, all sync.WaitGroup
	started.Add(workers)
	for w := range workers {
		b := s.noise(int64(s.info.BlockBytes))
		r := rand.New(rand.NewPCG(uint64(w), 0))
		all.Go(func() {
			off := block.Offset(w * s.info.BlockBytes)
			err := errors.Join(s.d.WriteAt(b, off, 0), s.d.Flush())
			started.Done()
			for err == nil {
				err = s.write(r, b, off)
			}
			if !errors.Is(err, block.ErrClosed) {
				s.Errorf("while it is closed: %v, not ErrClosed", err)
			}
			if err := s.d.WriteAt(b, off, 0); !errors.Is(err, block.ErrClosed) {
				s.Errorf("after it was closed: %v, not ErrClosed", err)
			}
		})
	}
	started.Wait()
	if err := s.d.Close(); err != nil {
		s.Error(err)
	}
	all.Wait()
}

// write writes and reads back, or does something else.
func (s *suite) write(r *rand.Rand, b []byte, off block.Offset) error {
	switch r.IntN(4) {
	case 0:
		return s.d.Flush()
	case 1:
		_, err := s.d.Status(block.Range{Start: off, LenBytes: int64(len(b))})
		return err
	}
	if err := s.d.WriteAt(b, off, 0); err != nil {
		return err
	}
	got := make([]byte, len(b))
	if err := s.d.ReadAt(got, off); err != nil {
		return err
	}
	if !bytes.Equal(b, got) {
		return errors.New("reads as something else than was written")
	}
	return nil
}
