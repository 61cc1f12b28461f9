package logvolume

import (
	"fmt"
	"sync/atomic"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// fetch is a read of a disk into memory of its own. It ends once: with the disk's
// answer, or before that, when it is given up. The memory of one that was given up
// goes back when the disk has answered.
type fetch struct {
	log     *Log
	disk    *disk
	b       []byte
	began   time.Time
	tick    int64 // of the watch, when it began
	asked   bool  // late was called; the watch's
	claimed atomic.Bool
	// late is called once when more patience is needed than reads of the disk
	// usually take; the fetch may be given up then. It may be nil.
	late func(*fetch)
	// end gets what was read, and gives it back to Log.buffers, or an error. Like
	// late it must not wait for reads: the goroutine that calls it is needed for them.
	end func(b []byte, err error)
}

// fetch begins a read of n bytes.
func (l *Log) fetch(d *disk, off int64, n int, late func(*fetch), end func(b []byte, err error)) {
	f := &fetch{log: l, disk: d, b: l.buffers.get(n), began: time.Now(), late: late, end: end}
	d.pending.Add(1)
	l.watch.add(f)
	block.StartRead(d.device, f.b, block.Offset(off), f.answered)
}

// answered is called when the disk has read, or failed.
func (f *fetch) answered(err error) {
	f.log.watch.remove(f)
	f.disk.tookRead(time.Since(f.began), len(f.b), err)
	f.disk.pending.Add(-1)
	switch claimed := f.claimed.CompareAndSwap(false, true); {
	case !claimed:
		f.disk.overdue.Add(-1)
		f.log.buffers.put(f.b)
	case err != nil:
		f.log.buffers.put(f.b)
		f.end(nil, fmt.Errorf("read disk %s: %w", f.disk.name, err))
	default:
		f.end(f.b, nil)
	}
}

// giveUp leaves a fetch to itself. It is false if the disk has answered.
func (f *fetch) giveUp() bool {
	if !f.claimed.CompareAndSwap(false, true) {
		return false
	}
	f.disk.overdue.Add(1)
	return true
}

// fail gives a fetch up and tells its end that it was late.
func (f *fetch) fail() {
	if f.giveUp() {
		f.end(nil, errLate)
	}
}

// readSome reads blocks of a disk, with all patience.
func (l *Log) readSome(d *disk, off int64, blocks int) (b []byte, err error) {
	err = block.Wait(func(done func(error)) {
		l.fetch(d, off, blocks*format.BlockBytes, nil, func(read []byte, err error) {
			b = read
			done(err)
		})
	})
	return b, err
}
