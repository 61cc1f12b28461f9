package logvolume

import (
	"fmt"
	"sync"
	"time"
)

// watch looks after reads that are under way, by a goroutine that runs while there
// are any: a timer for each of them cost 3 us.
type watch struct {
	log     *Log
	mu      sync.Mutex
	reads   map[*fetch]struct{}
	running bool
	// ticks is the time: it stands still while the process is stopped, so that
	// reads are not late because of that.
	ticks int64
}

// tick is how often reads are looked at.
const tick = 20 * time.Millisecond

func (w *watch) add(f *fetch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.tick = w.ticks
	w.reads[f] = struct{}{}
	if !w.running {
		w.running = true
		w.log.fetches.Go(w.run)
	}
}

func (w *watch) remove(f *fetch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.reads, f)
}

func (w *watch) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for range ticker.C {
		late, lost, more := w.look()
		for _, f := range late {
			f.late(f)
		}
		for _, f := range lost {
			w.log.putOutLate(f.disk)
			f.fail()
		}
		if !more {
			return
		}
	}
}

// look returns reads whose patience is over, those that are given up altogether,
// and whether any are under way.
func (w *watch) look() (late, lost []*fetch, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ticks++
	for f := range w.reads {
		switch age := time.Duration(w.ticks-f.tick-1) * tick; {
		case age >= f.disk.timeout:
			delete(w.reads, f)
			lost = append(lost, f)
		case f.late != nil && !f.asked && age >= f.disk.patience():
			f.asked = true
			late = append(late, f)
		}
	}
	w.running = len(w.reads)+len(late)+len(lost) > 0
	return late, lost, w.running
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
