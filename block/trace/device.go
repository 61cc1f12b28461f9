package trace

import (
	"errors"
	"fmt"

	"torpor/block"
	"torpor/block/memory"
)

// Device is a device that is recorded. It is a block.VectorDevice.
type Device struct {
	below     block.Device
	index     int // in the recording's disks
	recording *Recording
	gate      block.Gate
	changes   block.RangeLock
}

// Options say how to record.
type Options struct {
	// SpillDirectory is where a file is made, without a name, for the content of
	// what is written; empty: it is kept in memory.
	SpillDirectory string
}

// New records one device. See NewGroup.
func New(d block.Device) (*Device, error) {
	devices, err := NewGroup(Options{}, d)
	if err != nil {
		return nil, err
	}
	return devices[0], nil
}

// NewGroup records devices together, from now on. They are flushed, and what
// they hold is copied. The new devices own them: closing one closes the one
// below.
func NewGroup(o Options, devices ...block.Device) ([]*Device, error) {
	r := &Recording{disks: make([]disk, len(devices))}
	traced := make([]*Device, len(devices))
	for i, d := range devices {
		info := d.Info()
		base, err := newClone(info)
		if err == nil {
			err = errors.Join(d.Flush(), copyData(base, d))
		}
		if err != nil {
			return nil, fmt.Errorf("record device %d: %w", i, err)
		}
		r.disks[i] = disk{info, base}
		traced[i] = &Device{below: d, index: i, recording: r}
	}
	if o.SpillDirectory == "" {
		return traced, nil
	}
	var err error
	if r.spill, err = openSpill(o.SpillDirectory); err != nil {
		return nil, err
	}
	return traced, nil
}

func newClone(info block.Info) (*memory.Device, error) {
	return memory.New(memory.Spec{SizeBytes: info.SizeBytes, BlockBytes: info.BlockBytes, Volatile: info.Volatile})
}

// copyData copies what a device holds.
func copyData(to, from block.Device) error {
	const stepBytes = 1 << 20
	size := from.Info().SizeBytes
	extents, err := from.Status(block.Range{LenBytes: size})
	if err != nil {
		return err
	}
	b := block.AlignedBuffer(stepBytes)
	for _, e := range extents {
		for e.Kind == block.Data && e.LenBytes > 0 {
			n := min(e.LenBytes, stepBytes)
			if err := errors.Join(from.ReadAt(b[:n], e.Start), to.WriteAt(b[:n], e.Start, 0)); err != nil {
				return err
			}
			e.Range = block.Range{Start: e.Start + block.Offset(n), LenBytes: e.LenBytes - n}
		}
	}
	return nil
}

// Recording is the record of the device's group.
func (d *Device) Recording() *Recording { return d.recording }

// Info describes the device below.
func (d *Device) Info() block.Info { return d.below.Info() }

// ReadAt hands on; reads are not recorded.
func (d *Device) ReadAt(p []byte, off block.Offset) error { return d.below.ReadAt(p, off) }

// ReadVectorAt hands on; reads are not recorded.
func (d *Device) ReadVectorAt(p [][]byte, off block.Offset) error {
	if _, err := d.Info().CheckVector(p, off); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return block.ReadVector(d.below, p, off)
}

// WriteAt records a write.
func (d *Device) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	o := op{Range: block.Range{Start: off, LenBytes: int64(len(p))}, fua: flags&block.FUA != 0}
	return d.change("write", &o, [][]byte{p}, func() error { return d.below.WriteAt(p, off, flags) })
}

// WriteVectorAt records one write.
func (d *Device) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	r, err := d.Info().CheckVector(p, off)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	o := op{Range: r, fua: flags&block.FUA != 0}
	return d.change("write", &o, p, func() error { return block.WriteVector(d.below, p, off, flags) })
}

// Zero records zeros.
func (d *Device) Zero(r block.Range, flags block.Flags) error {
	o := op{Range: r, fua: flags&block.FUA != 0}
	return d.change("zero", &o, nil, func() error { return d.below.Zero(r, flags) })
}

// Discard records zeros, which on a device without Info.Discards need not be seen.
func (d *Device) Discard(r block.Range, flags block.Flags) error {
	o := op{Range: r, fua: flags&block.FUA != 0, soft: !d.Info().Discards}
	return d.change("discard", &o, nil, func() error { return d.below.Discard(r, flags) })
}

// change records what do does, after others that overlap with it. A refused
// request is not recorded.
func (d *Device) change(verb string, o *op, p [][]byte, do func() error) error {
	if err := d.Info().CheckChange(o.Range); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	defer d.changes.Lock(o.Range)()
	o.disk = d.index
	if err := d.recording.begin(o, p); err != nil {
		return err
	}
	err := do()
	d.recording.end(o, err)
	return err
}

// Flush records a flush.
func (d *Device) Flush() error {
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	return d.flush(d.below.Flush)
}

func (d *Device) flush(do func() error) error {
	o := &op{disk: d.index, flush: true}
	if err := d.recording.begin(o, nil); err != nil {
		return err
	}
	err := do()
	d.recording.end(o, err)
	return err
}

// Status hands on.
func (d *Device) Status(r block.Range) ([]block.Extent, error) { return d.below.Status(r) }

// Close closes the device below, which is recorded as a flush.
func (d *Device) Close() error {
	if err := d.gate.Close(); err != nil {
		return err
	}
	return d.flush(d.below.Close)
}
