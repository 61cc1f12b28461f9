package align

import (
	"fmt"
	"sync"

	"torpor/block"
)

// Device is a device of small blocks. It is a block.VectorDevice.
type Device struct {
	below   block.Device
	info    block.Info // but for SizeBytes, which is the one of below
	large   int64      // bytes of a block below
	gate    block.Gate
	changes block.RangeLock // of whole large blocks
	memory  sync.Pool       // of *[]byte, a large block each
}

// New makes a device with blocks of blockBytes, a power of two. It owns the one
// below: closing it closes that one. Errors: block.ErrAlignment if the blocks
// below are smaller.
func New(below block.Device, blockBytes int) (*Device, error) {
	info := below.Info()
	if blockBytes < 1 || blockBytes&(blockBytes-1) != 0 || blockBytes > info.BlockBytes {
		return nil, fmt.Errorf("make blocks of %d bytes of those of %d bytes: %w", blockBytes, info.BlockBytes, block.ErrAlignment)
	}
	d := &Device{below: below, info: info, large: int64(info.BlockBytes)}
	d.info.BlockBytes = blockBytes
	d.memory.New = func() any {
		b := block.AlignedBuffer(int(d.large))
		return &b
	}
	return d, nil
}

// Info describes the device.
func (d *Device) Info() block.Info {
	info := d.info
	info.SizeBytes = d.below.Info().SizeBytes
	return info
}

// ReadAt fills p.
func (d *Device) ReadAt(p []byte, off block.Offset) error { return d.ReadVectorAt([][]byte{p}, off) }

// WriteAt writes p.
func (d *Device) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	return d.WriteVectorAt([][]byte{p}, off, flags)
}

// ReadVectorAt fills p. It is one request below if all of it is large blocks.
func (d *Device) ReadVectorAt(p [][]byte, off block.Offset) error {
	if _, err := d.Info().CheckVector(p, off); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	if d.fits(p, off) {
		return block.ReadVector(d.below, p, off)
	}
	for _, b := range p {
		if err := d.read(b, off); err != nil {
			return err
		}
		off += block.Offset(len(b))
	}
	return nil
}

// fits says whether all buffers begin and end where large blocks do.
func (d *Device) fits(p [][]byte, off block.Offset) bool {
	all := int64(off)
	for _, b := range p {
		all |= int64(len(b))
	}
	return all&(d.large-1) == 0
}

func (d *Device) read(b []byte, off block.Offset) error {
	r := block.Range{Start: off, LenBytes: int64(len(b))}
	return d.eachPart(r, func(part block.Range, whole bool) error {
		into := b[part.Start-off:][:part.LenBytes]
		if whole {
			return d.below.ReadAt(into, part.Start)
		}
		return d.partly(part, func(_ []byte, inside []byte, _ block.Offset) error {
			copy(into, inside)
			return nil
		})
	})
}

// WriteVectorAt writes p. It is one request below if all of it is large blocks.
func (d *Device) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	r, err := d.Info().CheckVector(p, off)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return d.change("write", r, func() error {
		if d.fits(p, off) {
			return block.WriteVector(d.below, p, off, flags)
		}
		for _, b := range p {
			if err := d.write(b, off, flags); err != nil {
				return err
			}
			off += block.Offset(len(b))
		}
		return nil
	})
}

func (d *Device) write(b []byte, off block.Offset, flags block.Flags) error {
	r := block.Range{Start: off, LenBytes: int64(len(b))}
	return d.eachPart(r, func(part block.Range, whole bool) error {
		from := b[part.Start-off:][:part.LenBytes]
		if whole {
			return d.below.WriteAt(from, part.Start, flags)
		}
		return d.partly(part, func(all, inside []byte, start block.Offset) error {
			copy(inside, from)
			return d.below.WriteAt(all, start, flags)
		})
	})
}

// Zero makes a range read as zeros, in part by writing them.
func (d *Device) Zero(r block.Range, flags block.Flags) error {
	return d.change("zero", r, func() error {
		return d.eachPart(r, func(part block.Range, whole bool) error {
			if whole {
				return d.below.Zero(part, flags)
			}
			return d.zeroPartly(part, flags)
		})
	})
}

// Discard says that a range is not needed. Of large blocks in part that is told
// to nobody; they are zeroed if Info.Discards.
func (d *Device) Discard(r block.Range, flags block.Flags) error {
	return d.change("discard", r, func() error {
		return d.eachPart(r, func(part block.Range, whole bool) error {
			switch {
			case whole:
				return d.below.Discard(part, flags)
			case d.info.Discards:
				return d.zeroPartly(part, flags)
			}
			return nil
		})
	})
}

// zeroPartly writes zeros, unless they are there already: a hole stays one. They
// may be there without being durable.
func (d *Device) zeroPartly(part block.Range, flags block.Flags) error {
	return d.partly(part, func(all, inside []byte, start block.Offset) error {
		if flags&block.FUA == 0 && isZero(inside) {
			return nil
		}
		clear(inside)
		return d.below.WriteAt(all, start, flags&block.FUA)
	})
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// change calls do after other changes of the same large blocks.
func (d *Device) change(verb string, r block.Range, do func() error) error {
	if err := d.Info().CheckChange(r); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	defer d.changes.Lock(d.around(r))()
	return do()
}

// Flush hands on.
func (d *Device) Flush() error { return d.below.Flush() }

// Status tells of the large blocks that a range touches.
func (d *Device) Status(r block.Range) ([]block.Extent, error) {
	if err := d.Info().Check(r); err != nil {
		return nil, fmt.Errorf("tell status: %w", err)
	}
	found, err := d.below.Status(d.around(r))
	if err != nil {
		return nil, err
	}
	var extents []block.Extent
	for _, e := range found {
		start, end := max(e.Start, r.Start), min(e.End(), r.End())
		if start < end {
			extents = block.AppendExtent(extents, block.Range{Start: start, LenBytes: int64(end - start)}, e.Kind)
		}
	}
	return extents, nil
}

// Close closes the device below.
func (d *Device) Close() error {
	if err := d.gate.Close(); err != nil {
		return err
	}
	return d.below.Close()
}
