package logvolume

import (
	"fmt"

	"torpor/block/logvolume/format"
)

// flushThrough returns when all changes up to one are durable. Who comes while
// another flush is under way waits for it, and then one takes all that were
// waiting with it.
func (l *Log) flushThrough(through format.Sequence) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.durable < through || l.stale {
		if l.failed != nil {
			return l.failed
		}
		if l.flushing {
			l.progress.Wait()
			continue
		}
		l.flushing = true
		err := l.commit(l.lastSequence)
		l.flushing = false
		l.progress.Broadcast()
		if err != nil {
			l.failLocked(err)
			return l.failed
		}
	}
	return l.failed
}

// commit makes all changes up to goal durable. Few go to the journal. Log.mu is
// held, and released for I/O; Log.flushing is ours. If it returns nil and they
// are not durable a disk was lost on the way, and another try is needed.
func (l *Log) commit(goal format.Sequence) error {
	r := l.recordOf(goal)
	if r == nil {
		return l.settle(goal, goal)
	}
	l.mu.Unlock()
	written := l.writeRecord(r)
	l.mu.Lock()
	if !r.late {
		l.unref(r.pages)
	}
	switch {
	case !written:
		return nil
	case l.partSequence > l.durable:
		return l.settle(l.cutSequence, r.header.Through)
	}
	return l.conclude(nil, r.header.Through)
}

// settle has all changes up to one cut, and all rows that were cut written and
// synced. Then changes up to goal are durable.
func (l *Log) settle(through, goal format.Sequence) error {
	l.cutThrough = max(l.cutThrough, through)
	l.work.Broadcast()
	for l.cutSequence < through && l.failed == nil {
		l.progress.Wait()
	}
	for last := l.nextRow - 1; l.finishedRow < last && l.failed == nil; {
		l.progress.Wait()
	}
	if l.failed != nil {
		return l.failed
	}
	return l.conclude(l.disks, goal)
}

// conclude syncs the disks, all or none, says in the superblocks which are out,
// and then counts changes up to goal as durable.
func (l *Log) conclude(disks []*disk, goal format.Sequence) error {
	row, sequence := l.finishedRow, l.finishedSequence
	if disks != nil {
		l.unsyncedBlocks = 0
	}
	l.mu.Unlock()
	l.syncDisks(disks)
	err := l.tellSupers()
	l.mu.Lock()
	switch {
	case err != nil:
		return err
	case l.failed != nil:
		return l.failed
	}
	if disks != nil {
		l.durableRow, l.settledSequence = max(l.durableRow, row), max(l.settledSequence, sequence)
		for _, d := range l.disks {
			d.journal.release(l.settledSequence)
		}
	}
	l.durable = max(l.durable, goal)
	l.progress.Broadcast()
	return nil
}

// syncDisks syncs all of these that are in use at once, and puts out those that
// fail. lost says whether there were any.
func (l *Log) syncDisks(disks []*disk) (lost bool) {
	usable := l.usable(disks)
	results := make(chan error, len(usable))
	for _, d := range usable {
		go func() {
			err := d.sync()
			if err != nil {
				l.putOut(d, err)
			}
			results <- err
		}()
	}
	for range usable {
		lost = <-results != nil || lost
	}
	return lost
}

func (l *Log) usable(disks []*disk) []*disk {
	l.mu.Lock()
	defer l.mu.Unlock()
	var usable []*disk
	for _, d := range disks {
		if d.usable() {
			usable = append(usable, d)
		}
	}
	return usable
}

// putOut stops using a disk. What it holds of segments that are written to now
// is incomplete from here on.
func (l *Log) putOut(d *disk, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putOutLocked(d, err)
}

func (l *Log) putOutLocked(d *disk, err error) {
	if d.state == format.DiskOut {
		return
	}
	d.state, d.reason, l.stale = format.DiskOut, err, true
	l.outs++
	l.spaceBlocks = l.capacity()
	l.event(d.name, "disk %s is not used any more: %v", d.name, err)
	if l.width() < l.geometry.DataShards {
		l.failLocked(fmt.Errorf("%d of %d disks are left, %d are needed: %w", l.width(), len(l.disks), l.geometry.DataShards, err))
	}
	for _, s := range l.segments {
		if s == nil || s.state == sealed && len(s.rows) == 0 && s.sealed <= l.durableRow {
			continue
		}
		for i := range s.shards {
			if s.shards[i].Disk == uint8(d.index) {
				s.shards[i].Stale = true
			}
		}
		if n := l.shardsWithout(s, d); s.columns > 0 && !s.cleaned && n < l.geometry.DataShards {
			l.failLocked(fmt.Errorf("%d shards are left of segment %d, which is being written, %d are needed: %w", n, s.id, l.geometry.DataShards, err))
		}
	}
	l.progress.Broadcast()
}
