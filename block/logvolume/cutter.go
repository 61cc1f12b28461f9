package logvolume

import "torpor/block/logvolume/format"

// runCutter makes rows of queued changes until Close. It is the only one that
// takes changes off the queue.
func (l *Log) runCutter() {
	defer l.workers.Done()
	defer close(l.rows)
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for !l.mustCut() && !l.ending {
			l.work.Wait()
		}
		if l.ending {
			// What is still queued is durable in the journal, or lost by a failure.
			return
		}
		if l.frozen != nil && l.frozen.Copies() > l.copiesAllowed() {
			l.progress.Wait() // for some to be written
			continue
		}
		if int64(l.unwrittenLeaves())*format.BlockBytes > l.options.MapBytes*3/4 {
			l.press()
			l.progress.Wait()
			continue
		}
		if l.crowded(l.stripeBlocks()) {
			l.press()
			l.progress.Wait()
			continue
		}
		r := l.cutChanges()
		if r == nil {
			l.wakeCleaner()
			l.progress.Wait()
			continue
		}
		l.mu.Unlock()
		l.rows <- r
		l.mu.Lock()
	}
}

// copiesAllowed is how many leaves of the map may be in memory twice while a
// checkpoint writes them: 5 % of all, and at least 8 MiB. Without it random writes
// doubled the map's memory; with it they wait for the checkpoint, 4 KiB of which is
// written for each block.
func (l *Log) copiesAllowed() int {
	return max(8<<20, int(l.blocks.MemoryBytes()/20)) / format.BlockBytes
}

// maxQueuedChanges is how many changes without data may wait for a row.
const maxQueuedChanges = 1024

func (l *Log) mustCut() bool {
	q := &l.queue
	return len(q.changes) > 0 && l.failed == nil &&
		(q.blocks >= l.stripeBlocks() || len(q.changes) > maxQueuedChanges || l.cutThrough > l.cutSequence)
}

// runWriter writes rows until the cutter has ended.
func (l *Log) runWriter() {
	defer l.workers.Done()
	for r := range l.rows {
		l.write(r)
	}
}

// cutChanges makes a row of the oldest changes. It returns nil if there is no
// segment for it now. Log.mu is held, and released while leaves are read.
func (l *Log) cutChanges() *row {
	if err := l.loadQueued(); err != nil {
		l.failLocked(err)
		return nil
	}
	d := l.draft(format.Hot)
	if d == nil {
		return nil
	}
	var taken []change
	for len(l.queue.changes) > 0 {
		c := &l.queue.changes[0]
		n, fits := d.take(c)
		if !fits {
			break
		}
		l.partSequence = c.sequence
		l.queue.blocks -= n
		taken = append(taken, c.cutOff(n))
		if len(c.pages) > 0 {
			break
		}
		l.cutSequence = c.sequence
		l.queue.pop()
	}
	r := d.cut(l.cutSequence)
	r.segment.wrote(len(r.pages), l.now())
	l.apply(r, taken)
	l.progress.Broadcast()
	return r
}

// take adds as much of a change to a row as fits, and says how many pages that
// are, and whether anything did.
func (d *draft) take(c *change) (pages int, fits bool) {
	if c.kind == format.KindHole {
		if fits = d.fits(len(d.row.pages), 1); fits {
			d.add(c.extent(), nil)
		}
		return 0, fits
	}
	n := min(len(c.pages), d.room(1))
	if n == 0 {
		return 0, false
	}
	e := c.extent()
	e.Count = uint32(n)
	d.add(e, c.pages[:n])
	return n, true
}

// apply makes the map say what the changes of a row do.
func (l *Log) apply(r *row, changes []change) {
	i := 0
	for _, c := range changes {
		if c.kind == format.KindHole {
			l.blocks.SetHoles(c.layer, c.start, uint64(c.count), l.useless)
		}
		for j := range c.pages {
			l.point(c.layer, c.start+format.Block(j), r, i)
			i++
		}
		l.queue.forget(c)
	}
}
