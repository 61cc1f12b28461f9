package logvolume

import (
	"fmt"
	"syscall"
	"time"

	"torpor/block"
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

// tookRead counts a read, and moves what is usual by an eighth of how it differs.
func (d *disk) tookRead(t time.Duration, lenBytes int, err error) {
	if err != nil {
		d.readErrors.Add(1)
		return
	}
	usual := d.usual.Load()
	d.usual.Store(usual + (int64(t)-usual)/8)
	d.readBytes.Add(int64(lenBytes))
}

// lags says whether reads are under way that nobody was patient enough for.
func (d *disk) lags() bool { return d.overdue.Load() > 0 }

// closeDevice does not wait forever for a device whose requests hang.
func (l *Log) closeDevice(name string, d block.Device) error {
	if err := await(l.options.DiskTimeout, d.Close); err != nil {
		return fmt.Errorf("close disk %s: %w", name, err)
	}
	return nil
}
