package logvolume

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// errLate ends a request that a disk has not answered in time. It is still under
// way: its memory must not be used again, and is left to the garbage collector.
var errLate = fmt.Errorf("no answer in time: %w", syscall.ETIMEDOUT)

// await makes a request, and waits so long for its end.
func await(patience time.Duration, request func() error) error {
	var err error
	done := make(chan struct{})
	go func() {
		err = request()
		close(done)
	}()
	if !endsWithin(patience, done) {
		return errLate
	}
	return err
}

// endsWithin says whether a channel is closed in so much time. Time in which this
// process was stopped hardly counts: it is measured in parts.
func endsWithin(patience time.Duration, done <-chan struct{}) bool {
	const parts = 4
	timer := time.NewTimer(patience / parts)
	defer timer.Stop()
	for range parts {
		select {
		case <-done:
			return true
		case <-timer.C:
			timer.Reset(patience / parts)
		}
	}
	return false
}

// request is await for a disk, which counts requests that are late.
func (d *disk) request(do func() error) error {
	d.pending.Add(1)
	return await(d.timeout, func() error {
		defer d.pending.Add(-1)
		return do()
	})
}

// minPatience is how long a read is waited for at least before the others are asked.
// On a machine that is short of processor time reads of healthy disks take 20 ms now
// and then; asking k others for each made it shorter still, by 15 %.
const minPatience = 100 * time.Millisecond

// patience is how long a read is waited for before other disks are asked, too: some
// times as long as reads take usually.
func (d *disk) patience() time.Duration {
	return min(max(minPatience, 8*time.Duration(d.usual.Load())), d.timeout)
}

// tookTime moves what is usual by an eighth of how a read differs from it.
func (d *disk) tookTime(t time.Duration) {
	usual := d.usual.Load()
	d.usual.Store(usual + (int64(t)-usual)/8)
}

// lags says whether reads are under way that nobody was patient enough for.
func (d *disk) lags() bool { return d.overdue.Load() > 0 }

// fetch is a read of a disk into memory of its own, which may be given up.
type fetch struct {
	log     *Log
	disk    *disk
	b       []byte
	err     error
	done    chan struct{}
	claimed atomic.Bool // by the first one of two: the end of the read, and abandon
}

// fetch begins a read. Its caller takes what it reads, or abandons it.
func (l *Log) fetch(d *disk, off int64, n int) *fetch {
	f := &fetch{log: l, disk: d, b: l.buffers.get(n), done: make(chan struct{})}
	d.pending.Add(1)
	go func() {
		f.err = d.read(f.b, off)
		d.pending.Add(-1)
		close(f.done)
		if !f.claimed.CompareAndSwap(false, true) {
			f.letGo()
		}
	}()
	return f
}

// await says whether the read ended in so much time.
func (f *fetch) await(patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-timer.C:
		return false
	}
}

// take waits for the end, and returns what was read. The caller puts it back.
func (f *fetch) take() ([]byte, error) {
	if !endsWithin(f.disk.timeout, f.done) {
		f.leave()
		f.log.putOutLate(f.disk)
		return nil, errLate
	}
	if f.err != nil {
		f.log.buffers.put(f.b)
		return nil, f.err
	}
	return f.b, nil
}

// abandon leaves a read to itself, but for watching whether it ever ends.
func (f *fetch) abandon() {
	f.leave()
	f.log.fetches.Go(func() {
		if !endsWithin(f.disk.timeout, f.done) {
			f.log.putOutLate(f.disk)
		}
	})
}

// leave has the read put its memory back when it ends.
func (f *fetch) leave() {
	f.disk.overdue.Add(1)
	if !f.claimed.CompareAndSwap(false, true) {
		f.letGo()
	}
}

func (f *fetch) letGo() {
	f.disk.overdue.Add(-1)
	f.log.buffers.put(f.b)
}

// readSome reads blocks of a disk. If it is impatient it may give up.
func (l *Log) readSome(d *disk, off int64, blocks int, patient bool) ([]byte, error) {
	f := l.fetch(d, off, blocks*format.BlockBytes)
	if !patient && !f.await(d.patience()) {
		f.abandon()
		return nil, errLate
	}
	return f.take()
}

// putOutLate puts a disk out whose reads do not end, if it can be spared. The last
// ones that can not may be slow.
func (l *Log) putOutLate(d *disk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	spare := 0
	for _, other := range l.disks {
		if other.usable() {
			spare++
		}
	}
	if spare > l.geometry.DataShards {
		l.putOutLocked(d, fmt.Errorf("read disk %s: %w", d.name, errLate))
	}
}

// closeDevice does not wait forever for a device whose requests hang.
func (l *Log) closeDevice(name string, d block.Device) error {
	if err := await(l.options.DiskTimeout, d.Close); err != nil {
		return fmt.Errorf("close disk %s: %w", name, err)
	}
	return nil
}
