package logvolume

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// Disk is what a log lies on.
type Disk struct {
	Name   string // what people call it: a path
	Device block.Device
}

// disk is a disk of an open log. Device is nil if it is missing.
type disk struct {
	name   string
	device block.Device
	id     format.DiskID
	index  int

	// guarded by Log.mu
	state   format.DiskState
	reason  error      // why it is out
	slots   []*segment // who uses each slot; nil: free
	written []bool     // slots that were used since they were discarded, as far as is known
	free    int        // free slots
	next    int        // where to look for a free slot
	journal ring

	// dirty: a write has returned since the last sync began. Only one sync runs at
	// a time, so that nobody takes another's, still under way, for done.
	dirty  atomic.Bool
	syncMu sync.Mutex

	timeout time.Duration
	pending atomic.Int32 // requests that the device has not ended
	overdue atomic.Int32 // reads that nobody waits for
	usual   atomic.Int64 // how long reads take, in ns

	readErrors, writeErrors, corrupt atomic.Int64
	readBytes, writtenBytes          atomic.Int64
}

// usable says whether rows and journal records may be written to it.
func (d *disk) usable() bool { return d.device != nil && d.state != format.DiskOut }

// sync makes durable what write has returned for.
func (d *disk) sync() error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if !d.dirty.Swap(false) {
		return nil
	}
	if err := d.request(d.device.Flush); err != nil {
		d.dirty.Store(true)
		d.writeErrors.Add(1)
		return fmt.Errorf("flush disk %s: %w", d.name, err)
	}
	return nil
}

// takeSlot marks a free slot as used by s.
func (d *disk) takeSlot(s *segment) uint32 {
	for d.slots[d.next] != nil {
		d.next = (d.next + 1) % len(d.slots)
	}
	slot := d.next
	d.slots[slot], d.written[slot] = s, true
	d.free--
	return uint32(slot)
}

func (d *disk) freeSlot(slot uint32) {
	d.slots[slot] = nil
	d.free++
}
