package fault

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"torpor/block"
)

// Device fails as its rules say. It is a block.VectorDevice.
type Device struct {
	below block.Device
	gate  block.Gate

	mu     sync.Mutex
	random *rand.Rand
	faults []*Fault
}

// New makes a device without rules, with seed 0. It owns the one below: closing
// it closes that one.
func New(below block.Device) *Device {
	d := &Device{below: below}
	d.Seed(0)
	return d
}

// Seed begins another sequence of chance.
func (d *Device) Seed(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.random = rand.New(rand.NewPCG(seed, 0))
}

// Add puts a rule in force.
func (d *Device) Add(r Rule) *Fault {
	if r.Ops == 0 {
		r.Ops = All
	}
	f := &Fault{rule: r, device: d, removed: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, f)
	return f
}

// Clear removes all rules.
func (d *Device) Clear() {
	d.mu.Lock()
	faults := slices.Clone(d.faults)
	d.mu.Unlock()
	for _, f := range faults {
		f.Remove()
	}
}

func (d *Device) remove(f *Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.faults, f); i >= 0 {
		d.faults = slices.Delete(d.faults, i, i+1)
		close(f.removed)
	}
}

// Damage flips bits at random places of what a range holds, of whole blocks, as
// a disk does that rots. Nobody may change the range meanwhile.
func (d *Device) Damage(r block.Range, bits int) error {
	b := make([]byte, r.LenBytes)
	if err := d.below.ReadAt(b, r.Start); err != nil {
		return err
	}
	d.flip([][]byte{b}, bits)
	return d.below.WriteAt(b, r.Start, 0)
}

// Info describes the device below.
func (d *Device) Info() block.Info { return d.below.Info() }

// ReadAt fills p.
func (d *Device) ReadAt(p []byte, off block.Offset) error { return d.ReadVectorAt([][]byte{p}, off) }

// WriteAt writes p.
func (d *Device) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	return d.WriteVectorAt([][]byte{p}, off, flags)
}

// ReadVectorAt fills p.
func (d *Device) ReadVectorAt(p [][]byte, off block.Offset) error {
	r, err := d.Info().CheckVector(p, off)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return d.request("read", Read, r, func(a Action, r block.Range) error {
		if err := block.ReadVector(d.below, p, r.Start); err != nil {
			return err
		}
		d.flip(p, a.FlipBits)
		return nil
	})
}

// WriteVectorAt writes p.
func (d *Device) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	r, err := d.Info().CheckVector(p, off)
	if err == nil {
		err = d.Info().CheckChange(r)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return d.request("write", Write, r, func(a Action, r block.Range) error {
		if a.FlipBits == 0 && !a.Tear || r.LenBytes == 0 {
			return block.WriteVector(d.below, p, r.Start, flags)
		}
		b := bytes.Join(p, nil)
		d.flip([][]byte{b}, a.FlipBits)
		if a.Tear {
			if err := d.tear(b, r.Start); err != nil {
				return err
			}
		}
		return d.below.WriteAt(b, r.Start, flags)
	})
}

// Zero makes a range read as zeros.
func (d *Device) Zero(r block.Range, flags block.Flags) error {
	return d.clear("zero", Zero, r, func(r block.Range) error { return d.below.Zero(r, flags) })
}

// Discard says that a range is not needed.
func (d *Device) Discard(r block.Range, flags block.Flags) error {
	return d.clear("discard", Discard, r, func(r block.Range) error { return d.below.Discard(r, flags) })
}

func (d *Device) clear(verb string, op Ops, r block.Range, do func(r block.Range) error) error {
	if err := d.Info().CheckChange(r); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return d.request(verb, op, r, func(a Action, r block.Range) error {
		if unit := int64(d.Info().BlockBytes); a.Tear && r.LenBytes > 0 {
			r.LenBytes = unit * d.chance(r.LenBytes/unit)
		}
		return do(r)
	})
}

// Flush makes durable what was written.
func (d *Device) Flush() error {
	return d.request("flush", Flush, block.Range{}, func(Action, block.Range) error { return d.below.Flush() })
}

// Status describes a range.
func (d *Device) Status(r block.Range) (extents []block.Extent, err error) {
	if err := d.Info().Check(r); err != nil {
		return nil, fmt.Errorf("tell status: %w", err)
	}
	// Extents of another place would break more than their kinds.
	err = d.request("tell status", Status, r, func(_ Action, _ block.Range) (err error) {
		extents, err = d.below.Status(r)
		return err
	})
	return extents, err
}

// Close closes the device below. It waits for requests that hang.
func (d *Device) Close() error {
	if err := d.gate.Close(); err != nil {
		return err
	}
	return d.below.Close()
}

// request lets a request meet its faults. do does it, at the place that it went
// to.
func (d *Device) request(verb string, op Ops, r block.Range, do func(a Action, r block.Range) error) error {
	if err := d.gate.Enter(); err != nil {
		return err
	}
	defer d.gate.Leave()
	a, removed := d.meet(op, r)
	time.Sleep(a.Delay)
	for _, c := range removed {
		<-c
	}
	var err error
	switch {
	case a.Err != nil && !a.Done:
	case a.Lose && op&(Change|Flush) != 0:
	default:
		err = do(a, d.shift(r, a.ShiftBytes))
	}
	if a.Err != nil {
		err = errors.Join(err, fmt.Errorf("%s at %d: %w", verb, r.Start, a.Err))
	}
	return err
}

// meet returns all that happens to a request, and what it waits for.
func (d *Device) meet(op Ops, r block.Range) (all Action, removed []chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		if !f.meets(op, r) {
			continue
		}
		a := f.rule.Action
		all.Delay += a.Delay
		if a.Jitter > 0 {
			all.Delay += time.Duration(d.random.Int64N(int64(a.Jitter)))
		}
		if a.Hang {
			removed = append(removed, f.removed)
		}
		all.ShiftBytes += a.ShiftBytes
		all.FlipBits += a.FlipBits
		all.Tear = all.Tear || a.Tear
		all.Lose = all.Lose || a.Lose
		if all.Err == nil {
			all.Err, all.Done = a.Err, a.Done
		}
	}
	return all, removed
}

// shift moves a range around the end of the device; one that would cross it
// ends there.
func (d *Device) shift(r block.Range, byBytes int64) block.Range {
	info := d.Info()
	if byBytes == 0 || r.LenBytes == 0 {
		return r
	}
	size := info.SizeBytes
	start := ((int64(r.Start)+byBytes)%size + size) % size
	start = min(start, size-r.LenBytes) &^ int64(info.BlockBytes-1)
	return block.Range{Start: block.Offset(start), LenBytes: r.LenBytes}
}

// chance returns a number below n, which is positive.
func (d *Device) chance(n int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.Int64N(n)
}

// flip flips so many bits of a vector, different ones if it has as many.
func (d *Device) flip(p [][]byte, bits int) {
	var total int64
	for _, b := range p {
		total += int64(len(b)) * 8
	}
	flipped := map[int64]bool{}
	for total > 0 && len(flipped) < bits && int64(len(flipped)) < total {
		bit := d.chance(total)
		if flipped[bit] {
			continue
		}
		flipped[bit] = true
		for _, b := range p {
			if n := int64(len(b)) * 8; bit >= n {
				bit -= n
				continue
			}
			b[bit/8] ^= 1 << (bit % 8)
			break
		}
	}
}

// tear puts what the device holds in the place of some sectors of b, at least one.
func (d *Device) tear(b []byte, off block.Offset) error {
	held := make([]byte, len(b))
	if err := d.below.ReadAt(held, off); err != nil {
		return err
	}
	sector := min(512, d.Info().BlockBytes)
	lost := d.chance(int64(len(b) / sector))
	for i := range int64(len(b) / sector) {
		if i == lost || d.chance(2) == 0 {
			at := i * int64(sector)
			copy(b[at:at+int64(sector)], held[at:])
		}
	}
	return nil
}
