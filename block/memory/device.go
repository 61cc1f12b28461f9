package memory

import (
	"fmt"
	"sync"

	"torpor/block"
)

// Spec says what device to make.
type Spec struct {
	SizeBytes  int64 // a multiple of BlockBytes
	BlockBytes int   // a power of two up to MaxBlockBytes; 0: block.BlockBytes
	// Volatile is what Info says of the device. All is as durable as memory can
	// be either way: what a power cut may leave is block/trace's to make up.
	Volatile bool
}

// MaxBlockBytes bounds Spec.BlockBytes.
const MaxBlockBytes = spanBytes

const (
	pageBytes = 4096
	spanBytes = 1 << 20 // what one lock covers without gap
	areaCount = 32
)

// Device is a thin device in memory. It is a block.VectorDevice.
type Device struct {
	info  block.Info
	gate  block.Gate
	areas [areaCount]area // span n is in area n % areaCount
}

// area holds pages by number; those that are not in it are holes.
type area struct {
	mu    sync.RWMutex
	pages map[int64]*[pageBytes]byte
}

// New makes a device that is one hole.
func New(s Spec) (*Device, error) {
	if s.BlockBytes == 0 {
		s.BlockBytes = block.BlockBytes
	}
	if s.BlockBytes < 1 || s.BlockBytes > MaxBlockBytes || s.BlockBytes&(s.BlockBytes-1) != 0 {
		return nil, fmt.Errorf("make device in memory: blocks of %d bytes: %w", s.BlockBytes, block.ErrUnsupported)
	}
	if s.SizeBytes < 0 || s.SizeBytes%int64(s.BlockBytes) != 0 {
		return nil, fmt.Errorf("make device in memory: size of %d bytes: %w", s.SizeBytes, block.ErrAlignment)
	}
	return &Device{info: block.Info{
		SizeBytes:      s.SizeBytes,
		BlockBytes:     s.BlockBytes,
		PreferredBytes: max(pageBytes, s.BlockBytes),
		Volatile:       s.Volatile,
		Discards:       true,
	}}, nil
}

// Info describes the device.
func (d *Device) Info() block.Info { return d.info }

// ReadAt fills p.
func (d *Device) ReadAt(p []byte, off block.Offset) error {
	return d.ReadVectorAt([][]byte{p}, off)
}

// WriteAt writes p.
func (d *Device) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	return d.WriteVectorAt([][]byte{p}, off, flags)
}

// ReadVectorAt fills p.
func (d *Device) ReadVectorAt(p [][]byte, off block.Offset) error {
	if _, err := d.info.CheckVector(p, off); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	for _, b := range p {
		for len(b) > 0 {
			part := firstSpan(block.Range{Start: off, LenBytes: int64(len(b))})
			d.readSpan(b[:part.LenBytes], off)
			b, off = b[part.LenBytes:], part.End()
		}
	}
	return nil
}

// WriteVectorAt writes p. A buffer is copied block by block: two calls that
// overlap mix whole blocks.
func (d *Device) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	if _, err := d.info.CheckVector(p, off); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	for _, b := range p {
		for len(b) > 0 {
			part := firstSpan(block.Range{Start: off, LenBytes: int64(len(b))})
			d.writeSpan(b[:part.LenBytes], off)
			b, off = b[part.LenBytes:], part.End()
		}
	}
	return nil
}

// Zero makes a hole.
func (d *Device) Zero(r block.Range, flags block.Flags) error { return d.clear("zero", r) }

// Discard makes a hole.
func (d *Device) Discard(r block.Range, flags block.Flags) error { return d.clear("discard", r) }

func (d *Device) clear(verb string, r block.Range) error {
	if err := d.info.Check(r); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	for r.LenBytes > 0 {
		part := firstSpan(r)
		d.clearSpan(part)
		r = block.Range{Start: part.End(), LenBytes: r.LenBytes - part.LenBytes}
	}
	return nil
}

// Flush has nothing to do.
func (d *Device) Flush() error {
	if err := d.gate.Enter(); err != nil {
		return err
	}
	d.gate.Leave()
	return nil
}

// Status tells pages from holes.
func (d *Device) Status(r block.Range) ([]block.Extent, error) {
	if err := d.info.Check(r); err != nil {
		return nil, fmt.Errorf("tell status: %w", err)
	}
	if err := d.gate.Enter(); err != nil {
		return nil, err
	}
	defer d.gate.Leave()
	var extents []block.Extent
	for r.LenBytes > 0 {
		part := firstSpan(r)
		extents = d.spanStatus(extents, part)
		r = block.Range{Start: part.End(), LenBytes: r.LenBytes - part.LenBytes}
	}
	return extents, nil
}

// Close frees the memory.
func (d *Device) Close() error {
	if err := d.gate.Close(); err != nil {
		return err
	}
	for i := range d.areas {
		d.areas[i].pages = nil
	}
	return nil
}

// AllocatedBytes is how much memory the content takes.
func (d *Device) AllocatedBytes() int64 {
	var n int64
	for i := range d.areas {
		a := &d.areas[i]
		a.mu.RLock()
		n += int64(len(a.pages)) * pageBytes
		a.mu.RUnlock()
	}
	return n
}
