package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"torpor/block"
)

// patternDevice holds much data in little memory: of a block that repeats eight
// bytes it keeps these, all others are on an inner device of the same size. So
// is the parity of such blocks: a code works on each byte's place on its own.
// Blocks of zeros take no memory. What was written outlives Close: open gives a
// new device with the same content, as if the machine had crashed in between.
type patternDevice struct {
	block.Device // the inner one
	gate         block.Gate
	content      *patternContent
}

// patternContent is guarded by locks, of which each has every patternLocks-th
// span of blocks.
type patternContent struct {
	locks    [patternLocks]sync.RWMutex
	patterns []uint64 // by block
	inner    []bool   // by block: the inner device has it
}

const (
	patternLocks = 64
	spanBlocks   = 256
)

var _ block.VectorDevice = (*patternDevice)(nil)

func newPatternDevice(inner block.Device) *patternDevice {
	n := inner.Info().SizeBytes / block.BlockBytes
	return &patternDevice{Device: inner, content: &patternContent{patterns: make([]uint64, n), inner: make([]bool, n)}}
}

// open makes a device with the content of one that was closed, on the same inner one.
func (d *patternDevice) open(inner block.Device) *patternDevice {
	return &patternDevice{Device: inner, content: d.content}
}

// span is a piece of a request that one lock covers.
type span struct {
	lock  *sync.RWMutex
	block int64
	bytes []byte
}

// spans enters the device if the request is right, and calls f for each piece.
func (d *patternDevice) spans(p [][]byte, off block.Offset, f func(s span) error) error {
	if _, err := d.Info().CheckVector(p, off); err != nil {
		return err
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	at := int64(off) / block.BlockBytes
	for _, b := range p {
		for len(b) > 0 {
			n := min(int64(len(b))/block.BlockBytes, spanBlocks-at%spanBlocks)
			lock := &d.content.locks[at/spanBlocks%patternLocks]
			if err := f(span{lock, at, b[:n*block.BlockBytes]}); err != nil {
				return err
			}
			b, at = b[n*block.BlockBytes:], at+n
		}
	}
	return nil
}

func (d *patternDevice) ReadAt(p []byte, off block.Offset) error {
	return d.ReadVectorAt([][]byte{p}, off)
}

func (d *patternDevice) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	return d.WriteVectorAt([][]byte{p}, off, flags)
}

func (d *patternDevice) ReadVectorAt(p [][]byte, off block.Offset) error {
	return d.spans(p, off, func(s span) error {
		s.lock.RLock()
		defer s.lock.RUnlock()
		return s.eachRun(func(i int) bool { return d.content.inner[s.block+int64(i)] }, func(first, end int, inner bool) error {
			part := s.bytes[first*block.BlockBytes : end*block.BlockBytes]
			if inner {
				return d.Device.ReadAt(part, block.Offset(s.block+int64(first))*block.BlockBytes)
			}
			for i := first; i < end; i++ {
				fillPattern(s.blockAt(i), d.content.patterns[s.block+int64(i)])
			}
			return nil
		})
	})
}

func (d *patternDevice) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	return d.spans(p, off, func(s span) error {
		s.lock.Lock()
		defer s.lock.Unlock()
		return s.eachRun(func(i int) bool { return !repeats(s.blockAt(i)) }, func(first, end int, inner bool) error {
			for i := first; i < end; i++ {
				d.content.set(s.block+int64(i), s.blockAt(i), inner)
			}
			if !inner {
				return nil
			}
			part := s.bytes[first*block.BlockBytes : end*block.BlockBytes]
			return d.Device.WriteAt(part, block.Offset(s.block+int64(first))*block.BlockBytes, flags)
		})
	})
}

// set touches no memory that needs no change.
func (c *patternContent) set(at int64, b []byte, inner bool) {
	if c.inner[at] != inner {
		c.inner[at] = inner
	}
	if pattern := binary.LittleEndian.Uint64(b); !inner && c.patterns[at] != pattern {
		c.patterns[at] = pattern
	}
}

func (d *patternDevice) Zero(r block.Range, flags block.Flags) error {
	if err := d.Info().CheckChange(r); err != nil {
		return err
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	for at := int64(r.Start) / block.BlockBytes; at < int64(r.End())/block.BlockBytes; at++ {
		lock := &d.content.locks[at/spanBlocks%patternLocks]
		lock.Lock()
		d.content.set(at, make([]byte, 8), false)
		lock.Unlock()
	}
	return nil
}

func (d *patternDevice) Discard(r block.Range, flags block.Flags) error { return d.Zero(r, flags) }

func (d *patternDevice) Flush() error {
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	return d.Device.Flush()
}

// Status knows nothing.
func (d *patternDevice) Status(r block.Range) ([]block.Extent, error) {
	if err := d.Info().Check(r); err != nil {
		return nil, err
	}
	if err := d.gate.Enter(); err != nil {
		return nil, err
	}
	d.gate.Leave()
	return block.AppendExtent(nil, r, block.Data), nil
}

// Close closes the inner device too.
func (d *patternDevice) Close() error {
	if err := d.gate.Close(); err != nil {
		return err
	}
	return d.Device.Close()
}

func (s span) blockAt(i int) []byte {
	return s.bytes[i*block.BlockBytes : (i+1)*block.BlockBytes]
}

// eachRun calls f with runs of blocks that are of the same kind.
func (s span) eachRun(kind func(i int) bool, f func(first, end int, kind bool) error) error {
	n := len(s.bytes) / block.BlockBytes
	for first := 0; first < n; {
		k, end := kind(first), first+1
		for end < n && kind(end) == k {
			end++
		}
		if err := f(first, end, k); err != nil {
			return fmt.Errorf("block %d: %w", s.block+int64(first), err)
		}
		first = end
	}
	return nil
}

func repeats(b []byte) bool { return bytes.Equal(b[8:], b[:len(b)-8]) }

// fillPattern makes b repeat eight bytes.
func fillPattern(b []byte, pattern uint64) {
	binary.LittleEndian.PutUint64(b, pattern)
	for n := 8; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}
