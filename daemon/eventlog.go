package daemon

import (
	"sync"

	"torpor/host"
)

// eventLog keeps the latest events and hands new ones to subscribers.
type eventLog struct {
	mu          sync.Mutex
	recent      []host.Event
	subscribers map[chan host.Event]bool
}

const (
	eventsKept      = 1000
	subscriberDepth = 256
)

func newEventLog() *eventLog { return &eventLog{subscribers: map[chan host.Event]bool{}} }

// send never waits: a subscriber that does not read loses events.
func (l *eventLog) send(e host.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.recent) == eventsKept {
		l.recent = append(l.recent[:0], l.recent[eventsKept/2:]...)
	}
	l.recent = append(l.recent, e)
	for c := range l.subscribers {
		select {
		case c <- e:
		default:
		}
	}
}

// subscribe returns what is kept and a channel of what follows.
func (l *eventLog) subscribe() ([]host.Event, chan host.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan host.Event, subscriberDepth)
	l.subscribers[c] = true
	return append([]host.Event(nil), l.recent...), c
}

func (l *eventLog) unsubscribe(c chan host.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.subscribers, c)
}
