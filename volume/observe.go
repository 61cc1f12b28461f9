package volume

import (
	"context"
	"strings"
	"time"

	"torpor/host"
)

// eventsWaiting bounds what the log tells faster than it can be looked at; more
// is dropped, as it says no more.
const eventsWaiting = 64

// observe takes what the log did by itself. It waits for nobody: the log must not.
func (s *Server) observe(reason string) {
	select {
	case s.happened <- reason:
	default:
	}
}

// observer turns that into events, by what has become of the log, until the
// context ends.
func (s *Server) observer(ctx context.Context) {
	known := s.describe()
	for {
		select {
		case <-ctx.Done():
			return
		case reason := <-s.happened:
			now := s.describe()
			kind := host.EventVolume
			if len(now.out) > len(known.out) {
				kind = host.EventDiskOut
			}
			s.tell(kind, "", reason)
			switch {
			case now.health == Degraded && known.health == OK:
				s.tell(host.EventDegraded, "", "not all disks are up: "+strings.Join(now.out, ", "))
			case now.health == OK && known.health == Degraded:
				s.tell(host.EventRebuilt, "", reason)
			}
			known = now
		}
	}
}

// describe is what the log says of itself; nothing if it is not open.
func (s *Server) describe() logDescription {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return logDescription{health: OK}
	}
	return s.log.Describe()
}

// event passes on what has happened.
func (s *Server) event(e host.Event) {
	if e.Attrs == nil {
		e.Attrs = map[string]string{}
	}
	e.Attrs["log"] = string(s.config.Log)
	e.Time = time.Now()
	s.events.Send(e)
}

// tell makes an event about a volume, or about the log.
func (s *Server) tell(kind host.EventType, volume, reason string) {
	s.event(host.Event{Type: kind, Volume: volume, Reason: reason})
}
