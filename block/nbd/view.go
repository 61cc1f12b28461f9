package nbd

import (
	"sync"
	"sync/atomic"

	"torpor/block"
	"torpor/block/align"
)

// view is a device as clients see it. Those that have not asked for its block
// size may send requests of single bytes. Then the changes of all clients go
// through a device that keeps changes of the same block apart, which costs some
// microseconds each: so this begins with the first client that needs it. It ends
// with the export.
type view struct {
	device     block.Device
	blockBytes int64
	small      block.Device // of single bytes, on device; not closed, since that closes device
	engaged    atomic.Bool  // changes go through small
	direct     sync.RWMutex // held for reading by changes that do not
}

func newView(d block.Device) (*view, error) {
	v := &view{device: d, blockBytes: int64(d.Info().BlockBytes), small: d}
	if v.blockBytes == 1 {
		return v, nil
	}
	small, err := align.New(d, 1)
	v.small = small
	return v, err
}

// engage prepares for a client whose requests may be of any size. It waits for
// changes that are under way.
func (v *view) engage() {
	v.engaged.Store(true)
	v.direct.Lock()
	defer v.direct.Unlock()
}

// of returns the device to ask about a range, without changing it.
func (v *view) of(r block.Range) block.Device {
	if (int64(r.Start)|r.LenBytes)&(v.blockBytes-1) == 0 {
		return v.device
	}
	return v.small
}

// change has f change the device.
func (v *view) change(f func(block.Device) error) error {
	if v.engaged.Load() {
		return f(v.small)
	}
	v.direct.RLock()
	if v.engaged.Load() {
		v.direct.RUnlock()
		return f(v.small)
	}
	defer v.direct.RUnlock()
	return f(v.device)
}
