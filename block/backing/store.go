package backing

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"torpor/block"
	"torpor/kernel/aio"
	"torpor/kernel/disk"
)

// store is an open file with what the kernel or a file system may not do made
// up for: addresses of memory, zeros, discards.
type store struct {
	*disk.File
	endBytes int64   // behind it, all reads as zeros
	sync     *syncer // keeps what was lost
	queue    *aio.Queue
}

// bounceBytes is how much is copied at once for direct I/O.
const bounceBytes = 256 << 10

// bounce holds memory for direct I/O of those who have none that is aligned.
var bounce = sync.Pool{New: func() any {
	b := block.AlignedBuffer(bounceBytes)
	return &b
}}

func (s *store) needsBounce(p [][]byte) bool {
	return s.Direct() && slices.ContainsFunc(p, func(b []byte) bool { return len(b) > 0 && !block.Aligned(b) })
}

func (s *store) read(p [][]byte, off int64) error {
	if off+totalBytes(p) > s.endBytes {
		return s.readBehind(p, off)
	}
	if !s.needsBounce(p) {
		return failed(s.ReadAt(p, off))
	}
	memory := bounce.Get().(*[]byte)
	defer bounce.Put(memory)
	for _, b := range p {
		for len(b) > 0 {
			n := min(len(b), bounceBytes)
			if err := s.ReadAt([][]byte{(*memory)[:n]}, off); err != nil {
				return failed(err)
			}
			copy(b, (*memory)[:n])
			b, off = b[n:], off+int64(n)
		}
	}
	return nil
}

// startRead is read of one buffer that calls done.
func (s *store) startRead(p []byte, off int64, done func(error)) {
	if len(p) == 0 || off+int64(len(p)) > s.endBytes || s.needsBounce([][]byte{p}) {
		go func() { done(s.read([][]byte{p}, off)) }()
		return
	}
	s.StartRead(s.queue, p, off, func(err error) { done(failed(err)) })
}

// readBehind reads what the file has of p and clears the rest.
func (s *store) readBehind(p [][]byte, off int64) error {
	for _, b := range p {
		n := int(min(int64(len(b)), max(0, s.endBytes-off)))
		if err := s.read([][]byte{b[:n]}, off); err != nil {
			return err
		}
		clear(b[n:])
		off += int64(len(b))
	}
	return nil
}

// write writes p, durably if fua.
func (s *store) write(p [][]byte, off int64, fua bool) error {
	do := s.WriteAt
	if fua {
		do = s.writeDurably
	}
	if !s.needsBounce(p) {
		return failed(do(p, off))
	}
	memory := bounce.Get().(*[]byte)
	defer bounce.Put(memory)
	for _, b := range p {
		for len(b) > 0 {
			n := copy(*memory, b)
			if err := do([][]byte{(*memory)[:n]}, off); err != nil {
				return failed(err)
			}
			b, off = b[n:], off+int64(n)
		}
	}
	return nil
}

// startWrite is write that calls done.
func (s *store) startWrite(p [][]byte, off int64, fua bool, done func(error)) {
	if totalBytes(p) == 0 || s.needsBounce(p) {
		go func() { done(s.write(p, off, fua)) }()
		return
	}
	s.StartWrite(s.queue, p, off, fua, func(err error) {
		switch {
		case err == nil || !fua:
			done(failed(err))
		case noSpace(err):
			go func() { done(s.write(p, off, fua)) }()
		default:
			s.sync.keep(err)
			done(err)
		}
	})
}

// writeDurably keeps an error, because it may be that of an earlier write which
// nobody will be told of again. That there is no space for this one is harmless.
func (s *store) writeDurably(p [][]byte, off int64) error {
	err := s.WriteDurablyAt(p, off)
	if err == nil {
		return nil
	}
	if noSpace(err) && noSpace(s.WriteAt(p, off)) {
		return err
	}
	s.sync.keep(err)
	return err
}

// zero makes a range read as zeros. A hole is made where space need not stay;
// of a block device it is a command that the kernel does not replace by writing.
func (s *store) zero(off, lenBytes int64, flags block.Flags) error {
	ways := []func(off, lenBytes int64) error{s.Punch, s.Zero}
	switch {
	case s.BlockDevice() && flags&block.FastOnly != 0:
		ways = ways[:1]
	case s.BlockDevice() || flags&block.KeepAllocated != 0:
		ways = ways[1:]
	}
	for _, way := range ways {
		if err := way(off, lenBytes); !unsupported(err) {
			return failed(err)
		}
	}
	if flags&block.FastOnly != 0 {
		return fmt.Errorf("zero %s: %w", s.Path(), block.ErrUnsupported)
	}
	zeros := block.AlignedBuffer(int(min(lenBytes, bounceBytes)))
	for lenBytes > 0 {
		n := min(lenBytes, bounceBytes)
		if err := s.write([][]byte{zeros[:n]}, off, false); err != nil {
			return err
		}
		off, lenBytes = off+n, lenBytes-n
	}
	return nil
}

// discard gives space back; of a file it makes a range read as zeros.
func (s *store) discard(off, lenBytes int64) error {
	if !s.BlockDevice() {
		return s.zero(off, lenBytes, 0)
	}
	if err := s.Discard(off, lenBytes); !unsupported(err) {
		return failed(err)
	}
	return nil
}

// status appends the extents of a range that begins at off of the file, and at
// the offset at of the device.
func (s *store) status(extents []block.Extent, off, lenBytes int64, at block.Offset) ([]block.Extent, error) {
	if s.BlockDevice() {
		return block.AppendExtent(extents, block.Range{Start: at, LenBytes: lenBytes}, block.Data), nil
	}
	data, err := s.Data(off, lenBytes)
	if err != nil {
		return nil, err
	}
	allocated, err := s.AllocatedBytes()
	if err != nil {
		return nil, err
	}
	hole := block.Hole
	if allocated >= s.endBytes { // then they are reserved space
		hole = block.Zero
	}
	end := off + lenBytes
	piece := func(to int64, kind block.Kind) {
		to = min(to, end)
		extents = block.AppendExtent(extents, block.Range{Start: at, LenBytes: to - off}, kind)
		at += block.Offset(to - off)
		off = to
	}
	for _, e := range data { // a block with any data is data
		piece(max(off, e.Start&^(block.BlockBytes-1)), hole)
		piece(max(off, (e.End+block.BlockBytes-1)&^(block.BlockBytes-1)), block.Data)
	}
	piece(end, hole)
	return extents, nil
}

func totalBytes(p [][]byte) int64 {
	var n int64
	for _, b := range p {
		n += int64(len(b))
	}
	return n
}

func unsupported(err error) bool {
	return errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}

// failed gives an error the kind that callers of a block device look for.
func failed(err error) error {
	if noSpace(err) {
		return fmt.Errorf("%w (%w)", err, block.ErrNoSpace)
	}
	return err
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
