package analyzer

import (
	"fmt"
	"slices"
	"time"

	"torpor/host"
	"torpor/socket"
)

// A parked connection costs 4 KB of kernel memory, a suspended one about 20 us
// of every wake, whichever connection that is for, and the first of them some
// milliseconds for the filter. So few are not worth it before a long silence, and
// many are unless the next wake is near.
const (
	many      = 64
	longIdle  = 10 * time.Minute
	soon      = time.Minute      // a peer that usually speaks within it is parked; few are, for so long a sleep
	shortTime = 10 * time.Second // of a sleep: nothing is suspended before it lasts longer than usual
)

// Choice is what to do with a connection of a sleeping service.
type Choice struct {
	Suspend bool
	Why     string
}

func park(format string, args ...any) Choice { return Choice{Why: fmt.Sprintf(format, args...)} }
func suspend(format string, args ...any) Choice {
	return Choice{Suspend: true, Why: fmt.Sprintf(format, args...)}
}

// Choose decides about a connection of the sleeping service.
func (a *Analyzer) Choose(k socket.Key, now time.Time) Choice {
	h := a.all[k]
	if h == nil { // seen by nobody: opened just before the sleep
		h = &history{lastIn: never, lastOut: never, first: a.slept, established: true}
	}
	return a.choose(k, h, a.moment(now))
}

func (a *Analyzer) choose(k socket.Key, h *history, now moment) Choice {
	idle, asleep, usual := now.since(h.last()), now.since(a.slept), a.usualSleep()
	r, pings := h.ping.rhythm()
	switch {
	case a.settings.Connections == host.ConnectionsPark:
		return park("connections: park is set")
	case h.unacknowledged > 0:
		return park("its peer has %d bytes unacknowledged", h.unacknowledged)
	case !h.established:
		return park("its peer has ended it")
	case a.settings.Connections == host.ConnectionsSuspend:
		return suspend("connections: suspend is set")
	case usual < shortTime && asleep < 2*usual:
		return park("idle for %s, but the service usually sleeps for %s", words(idle), words(usual))
	case idle >= longIdle && (a.held >= many || asleep >= soon):
		return suspend("idle for %s", words(idle))
	case a.expected(h):
		return park("idle for %s, usual gap %s", words(idle), words(h.gap))
	case pings && r.usual < soon && a.worthwhile(r) && !a.internal(k):
		return park("idle for %s, its own ping is sent every %s", words(idle), words(r.usual))
	case a.held < many:
		return park("idle for %s, %s held", words(idle), count(a.held, "connection"))
	}
	return suspend("%s held", count(a.held, "connection"))
}

// expected reports whether the peer usually speaks so often that its connection
// is better parked.
func (a *Analyzer) expected(h *history) bool {
	gap, ok := h.usual()
	return ok && gap < soon
}

// Soon reports whether a connection is expected to be used soon, so that others
// are suspended before it.
func (a *Analyzer) Soon(k socket.Key) bool {
	h := a.all[k]
	return h != nil && a.expected(h)
}

// usualSleep is the median of the last sleeps; 0 if there were too few.
func (a *Analyzer) usualSleep() time.Duration {
	if a.n < leastGaps {
		return 0
	}
	kept := a.sleeps
	slices.Sort(kept[:a.n])
	return kept[a.n/2]
}

// AnySuspended reports whether Choose says so of any connection.
func (a *Analyzer) AnySuspended(now time.Time) bool {
	n := a.moment(now)
	for k, h := range a.all {
		if a.choose(k, h, n).Suspend {
			return true
		}
	}
	return len(a.all) == 0 && a.Choose(socket.Key{}, now).Suspend
}
