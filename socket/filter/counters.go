package filter

import (
	"sync"
	"sync/atomic"
	"time"
)

// Counters count what happened since Open. Each packet is one of Passed, Woken,
// Answered, Updates, Limited, Dropped, SendErrors, WakeErrors, Silenced.
type Counters struct {
	Packets    uint64 // that came to the queues
	Passed     uint64 // of no suspended connection
	Woken      uint64 // released to a restored socket
	Answered   uint64
	Updates    uint64 // of a peer's window
	Limited    uint64 // not answered, because there were too many
	Dropped    uint64 // that nothing had to be done for
	SendErrors uint64 // not answered, because of an error
	WakeErrors uint64 // dropped, because the connection was not restored
	Silenced   uint64 // RST of the kernel, for a connection whose socket had just gone

	Refused uint64 // those that do not fit the connection they name: forged, or very late
	Lost    uint64 // those that did not fit into the queues

	LastError   error // of sending, waking or giving a verdict
	LastErrorAt time.Time
}

// tally is Counters while they are counted.
type tally struct {
	packets, passed, woken, answered, updates, limited, dropped, sendErrors, wakeErrors, silenced, refused atomic.Uint64

	mu     sync.Mutex
	last   error
	lastAt time.Time
}

// failed remembers an error.
func (t *tally) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.lastAt = err, time.Now()
}

// read returns the sums. Packets is read last, so it is never smaller than
// theirs.
func (t *tally) read() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Counters{
		Passed: t.passed.Load(), Woken: t.woken.Load(), Answered: t.answered.Load(), Updates: t.updates.Load(), Limited: t.limited.Load(),
		Dropped: t.dropped.Load(), SendErrors: t.sendErrors.Load(), WakeErrors: t.wakeErrors.Load(), Silenced: t.silenced.Load(), Refused: t.refused.Load(),
		Packets: t.packets.Load(), LastError: t.last, LastErrorAt: t.lastAt,
	}
}
