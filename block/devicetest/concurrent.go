package devicetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"torpor/block"
)

const workers = 6

// each runs f in several goroutines, with a source of random numbers for each.
func (s *suite) each(f func(worker int, r *rand.Rand) error) {
	s.Helper()
	var all sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		r := rand.New(rand.NewPCG(s.rand.Uint64(), uint64(w)))
		all.Go(func() { errs[w] = f(w, r) })
	}
	all.Wait()
	s.must(errors.Join(errs...))
}

// testDisjoint has each worker use its own blocks, which lie between those of
// the others: what it reads is what it wrote last.
func (s *suite) testDisjoint() {
	unit := int64(s.info.BlockBytes)
	cells := min(s.area/unit/workers, 64) // of each worker
	span := unit * max(1, 512/unit)       // so that tiny blocks share the block below
	if cells*workers*span > s.area {
		span = unit
	}
	s.must(s.d.Zero(block.Range{LenBytes: s.area}, 0))
	s.each(func(w int, r *rand.Rand) error {
		held := make([][]byte, cells)
		for i := range held {
			held[i] = make([]byte, span)
		}
		for range s.o.Steps / 2 {
			i := r.Int64N(cells)
			at := block.Range{Start: block.Offset((i*workers + int64(w)) * span), LenBytes: span}
			if err := s.useCell(r, held[i], at); err != nil {
				return fmt.Errorf("worker %d at %d: %w", w, at.Start, err)
			}
		}
		return nil
	})
	s.end()
}

// useCell changes a range that is nobody else's, or flushes, and reads it.
func (s *suite) useCell(r *rand.Rand, held []byte, at block.Range) error {
	var err error
	switch r.IntN(8) {
	case 0:
		err = s.d.Zero(at, 0)
		clear(held)
	case 1:
		err = s.d.Flush()
	case 2:
		fillNoise(r, held)
		err = s.d.WriteAt(held, at.Start, block.FUA)
	default:
		fillNoise(r, held)
		err = s.d.WriteAt(held, at.Start, 0)
	}
	got := make([]byte, len(held))
	if err = errors.Join(err, s.d.ReadAt(got, at.Start)); err == nil && !bytes.Equal(got, held) {
		err = errors.New("reads as something else than was written")
	}
	return err
}

// testOverlap has the workers write the same blocks: afterwards each block is
// whole one that somebody wrote.
func (s *suite) testOverlap() {
	unit := int64(s.info.BlockBytes)
	blocks := min(s.area/unit, 32)
	var writers atomic.Uint64
	for range 20 {
		s.must(s.d.Zero(block.Range{LenBytes: blocks * unit}, 0))
		writers.Store(0)
		s.each(func(w int, r *rand.Rand) error {
			for range 4 {
				from := r.Int64N(blocks)
				n := 1 + r.Int64N(blocks-from)
				mark := byte(writers.Add(1))
				b := bytes.Repeat([]byte{mark}, int(n*unit))
				if err := s.d.WriteAt(b, block.Offset(from*unit), 0); err != nil {
					return err
				}
			}
			return nil
		})
		got := make([]byte, blocks*unit)
		s.must(s.d.ReadAt(got, 0))
		for i := range blocks {
			b := got[i*unit : (i+1)*unit]
			if !bytes.Equal(b, bytes.Repeat(b[:1], len(b))) || uint64(b[0]) > writers.Load() {
				s.Fatalf("block %d is a mixture", i)
			}
		}
	}
	s.end()
}
