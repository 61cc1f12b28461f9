package keeper

import (
	"sync"

	"torpor/host"
)

// broadcast hands events to every subscriber. A subscriber that does not read
// loses the oldest: nobody's sleep waits for a watcher.
type broadcast struct {
	mu          sync.Mutex
	closed      bool
	subscribers map[chan host.Event]bool
	recent      []host.Event // before the first subscriber
}

const (
	subscriberDepth = 256
	recentMost      = 64
)

func newBroadcast() *broadcast { return &broadcast{subscribers: map[chan host.Event]bool{}} }

func (b *broadcast) send(event host.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subscribers) == 0 && len(b.recent) < recentMost {
		b.recent = append(b.recent, event)
	}
	for c := range b.subscribers {
		for {
			select {
			case c <- event:
			default:
				<-c
				continue
			}
			break
		}
	}
}

func (b *broadcast) subscribe() chan host.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan host.Event, subscriberDepth)
	if b.closed {
		close(c)
		return c
	}
	for _, event := range b.recent {
		c <- event
	}
	b.recent = nil
	b.subscribers[c] = true
	return c
}

func (b *broadcast) unsubscribe(c chan host.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subscribers, c)
}

func (b *broadcast) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for c := range b.subscribers {
		close(c)
	}
	b.subscribers = map[chan host.Event]bool{}
}
