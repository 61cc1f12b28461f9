package block

import (
	"slices"
	"sync"
)

// RangeLock keeps calls apart whose ranges overlap, in the order in which they
// came. Its zero value is unlocked. It may be used from any number of
// goroutines; one that holds a range does not lock another.
type RangeLock struct {
	mu    sync.Mutex
	queue []*rangeHold // those who hold or wait for a range, the first one first
}

type rangeHold struct {
	Range
	done chan struct{} // closed when it is given back
}

// Lock waits until those who came before and overlap with r have unlocked, and
// returns how to unlock. Empty ranges overlap with none.
func (l *RangeLock) Lock(r Range) (unlock func()) {
	hold := &rangeHold{r, make(chan struct{})}
	var before []*rangeHold
	l.mu.Lock()
	for _, h := range l.queue {
		if max(h.Start, r.Start) < min(h.End(), r.End()) {
			before = append(before, h)
		}
	}
	l.queue = append(l.queue, hold)
	l.mu.Unlock()
	for _, h := range before {
		<-h.done
	}
	return func() {
		l.mu.Lock()
		l.queue = slices.DeleteFunc(l.queue, func(h *rangeHold) bool { return h == hold })
		l.mu.Unlock()
		close(hold.done)
	}
}
