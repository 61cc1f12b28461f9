package logvolume

import (
	"errors"

	"torpor/block"
)

// keepWritten is how many free slots of a disk keep their space, to be used
// again. More are discarded: what lies below gives the space to others.
const keepWritten = 16

// trim discards free slots, if the cleaner has nothing better to do. A slot that
// is being discarded is taken by trimming.
func (l *Log) trim() {
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	l.mu.Lock()
	disks := l.disks
	l.mu.Unlock()
	for _, d := range disks {
		for {
			slot, ok := l.takeToTrim(d)
			if !ok {
				break
			}
			r := block.Range{Start: block.Offset(l.geometry.SlotOffset(slot)), LenBytes: l.geometry.ShardBytes}
			// If it keeps its space, others have less, and nothing is lost.
			if err := d.request(func() error { return d.device.Discard(r, 0) }); errors.Is(err, errLate) {
				l.putOut(d, err)
			}
			l.mu.Lock()
			l.disks[d.index].freeSlot(slot)
			l.mu.Unlock()
		}
	}
}

// trimming is who has a slot while it is discarded.
var trimming = &segment{}

// takeToTrim takes the last written one of a disk's free slots, if there are too many.
func (l *Log) takeToTrim(d *disk) (slot uint32, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ending || !d.usable() {
		return 0, false
	}
	written := 0
	for i, s := range d.slots {
		if s == nil && d.written[i] {
			written++
			slot = uint32(i)
		}
	}
	if written <= keepWritten {
		return 0, false
	}
	d.slots[slot], d.written[slot] = trimming, false
	d.free--
	return slot, true
}
