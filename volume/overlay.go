package volume

import (
	"sync"

	"torpor/block"
)

// overlay is a device that keeps changes of another one in memory, block by
// block, and never writes to it.
type overlay struct {
	below block.Device

	mu      sync.RWMutex
	changed map[block.Offset][]byte // nil: zeros
}

func newOverlay(below block.Device) *overlay {
	return &overlay{below: below, changed: map[block.Offset][]byte{}}
}

// Info says what the device is, but for what only the one below can.
func (o *overlay) Info() block.Info {
	info := o.below.Info()
	info.ReadOnly, info.Discards = false, true
	return info
}

// ReadAt fills p.
func (o *overlay) ReadAt(p []byte, off block.Offset) error {
	if err := o.below.ReadAt(p, off); err != nil {
		return err
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	step := o.below.Info().BlockBytes
	for at := 0; at < len(p); at += step {
		content, changed := o.changed[off+block.Offset(at)]
		switch {
		case changed && content == nil:
			clear(p[at : at+step])
		case changed:
			copy(p[at:at+step], content)
		}
	}
	return nil
}

// WriteAt keeps p.
func (o *overlay) WriteAt(p []byte, off block.Offset, _ block.Flags) error {
	info := o.Info()
	if err := info.Check(block.Range{Start: off, LenBytes: int64(len(p))}); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for at := 0; at < len(p); at += info.BlockBytes {
		o.changed[off+block.Offset(at)] = append([]byte(nil), p[at:at+info.BlockBytes]...)
	}
	return nil
}

// Zero keeps that a range is zeros.
func (o *overlay) Zero(r block.Range, _ block.Flags) error {
	info := o.Info()
	if err := info.Check(r); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for at := r.Start; at < r.End(); at += block.Offset(info.BlockBytes) {
		o.changed[at] = nil
	}
	return nil
}

// Discard is Zero.
func (o *overlay) Discard(r block.Range, flags block.Flags) error { return o.Zero(r, flags) }

// Flush does nothing: changes are not to last.
func (*overlay) Flush() error { return nil }

// Status calls everything data.
func (o *overlay) Status(r block.Range) ([]block.Extent, error) {
	if err := o.Info().Check(r); err != nil {
		return nil, err
	}
	return []block.Extent{{Range: r, Kind: block.Data}}, nil
}

// Close closes the device below.
func (o *overlay) Close() error { return o.below.Close() }
