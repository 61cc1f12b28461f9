package logvolume

import (
	"fmt"
	"sync"
	"time"
)

// watch looks after requests that are under way, by a goroutine that runs while
// there are any: a timer for each of them cost 3 us.
type watch struct {
	log      *Log
	mu       sync.Mutex
	requests map[*request]struct{}
	running  bool
	// ticks is the time: it stands still while the process is stopped, so that
	// requests are not late because of that.
	ticks int64
}

// tick is how often requests are looked at.
const tick = 20 * time.Millisecond

func (w *watch) add(r *request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.tick = w.ticks
	w.requests[r] = struct{}{}
	if !w.running {
		w.running = true
		w.log.late.Go(w.run)
	}
}

func (w *watch) remove(r *request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.requests, r)
}

func (w *watch) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for range ticker.C {
		slow, hopeless, more := w.look()
		for _, r := range slow {
			r.of.impatient()
		}
		for _, r := range hopeless {
			r.of.hopeless()
		}
		if !more {
			return
		}
	}
}

// look returns requests that are slow, those that are given up, and whether any are
// under way.
func (w *watch) look() (slow, hopeless []*request, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ticks++
	w.running = len(w.requests) > 0
	for r := range w.requests {
		switch age := time.Duration(w.ticks-r.tick-1) * tick; {
		case age >= r.disk.timeout:
			delete(w.requests, r)
			hopeless = append(hopeless, r)
		case !r.hurried && age >= r.disk.patience():
			r.hurried = true
			slow = append(slow, r)
		}
	}
	return slow, hopeless, w.running
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
