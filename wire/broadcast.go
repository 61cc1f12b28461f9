package wire

import (
	"encoding/json"
	"net/http"
	"sync"

	"torpor/host"
)

// Broadcast hands events to every subscriber. A subscriber that does not read
// loses the oldest: nobody's sleep waits for a watcher.
type Broadcast struct {
	mu          sync.Mutex
	closed      bool
	subscribers map[chan host.Event]bool
	recent      []host.Event // before the first subscriber
}

const (
	subscriberDepth = 256
	recentMost      = 64
)

// NewBroadcast has no watchers yet; what is sent before the first one is kept
// for it, as far as it is not much.
func NewBroadcast() *Broadcast { return &Broadcast{subscribers: map[chan host.Event]bool{}} }

// Send waits for nobody.
func (b *Broadcast) Send(event host.Event) {
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

func (b *Broadcast) subscribe() chan host.Event {
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

func (b *Broadcast) unsubscribe(c chan host.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subscribers, c)
}

// Close ends all watching.
func (b *Broadcast) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for c := range b.subscribers {
		close(c)
	}
	b.subscribers = map[chan host.Event]bool{}
}

// ServeHTTP writes events as JSON lines until the client or the broadcast ends.
func (b *Broadcast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	events := b.subscribe()
	defer b.unsubscribe(events)
	controller := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = controller.Flush()
	encoder := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case event, ok := <-events:
			if !ok || encoder.Encode(event) != nil {
				return
			}
			_ = controller.Flush()
		}
	}
}
