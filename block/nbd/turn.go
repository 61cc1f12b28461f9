package nbd

import (
	"sync/atomic"
	"time"
)

// patience is how long a connection may be held up by one request, or by a
// client that does not take replies, before another goroutine reads on: between
// once and twice this time.
const patience = time.Millisecond

// turn is the right to read requests from a connection, which one goroutine
// has. It brackets what may block by begin and end. A timer, which runs while
// there is something to see only, compares what it sees with what it saw the
// last time, so that a request costs a few atomic operations and no timer of
// its own:
//
//	idle --begin--> busy --end--> idle
//	                  \--timer, twice in the same busy state--> idle, of the timer's goroutine
//
// Each arrow adds one to the counter: odd is busy.
type turn struct {
	counter atomic.Uint64
	armed   atomic.Bool
	timer   *time.Timer
	seen    uint64 // by the timer, the last time

	arm  func() // notes that the timer's function will run
	take func() // runs in the timer's goroutine, which has the turn
}

// begin returns what end wants to know.
func (t *turn) begin() uint64 {
	busy := t.counter.Load() + 1
	t.counter.Store(busy)
	if !t.armed.Load() {
		t.start()
	}
	return busy
}

// end returns whether the caller still has the turn.
func (t *turn) end(busy uint64) bool { return t.counter.CompareAndSwap(busy, busy+1) }

func (t *turn) start() {
	if t.armed.CompareAndSwap(false, true) {
		t.arm()
		t.timer.Reset(patience)
	}
}

// tick is the timer's function.
func (t *turn) tick() {
	now := t.counter.Load()
	still := now == t.seen
	t.seen = now
	switch busy := now%2 == 1; {
	case still && busy && t.counter.CompareAndSwap(now, now+1):
		t.armed.Store(false)
		t.take()
	case still && !busy:
		t.armed.Store(false)
		if t.counter.Load() != now { // begun before that was seen
			t.start()
		}
	default:
		t.arm()
		t.timer.Reset(patience)
	}
}
