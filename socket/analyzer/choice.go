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

// Choose decides about a connection of the sleeping service.
func (a *Analyzer) Choose(k socket.Key, now time.Time) Choice {
	h := a.all[k]
	if h == nil { // seen by nobody: opened just before the sleep
		h = &history{lastIn: never, lastOut: never, first: a.slept, established: true}
	}
	n := a.moment(now)
	c := a.cause(k, h, n)
	return Choice{Suspend: c.suspends(), Why: a.words(k, c, h, n)}
}

// cause is why a connection is parked or suspended. Words are made for those
// that are shown only: there may be 100,000.
type cause uint8

const (
	parkIsSet cause = iota
	unacknowledged
	ended
	shortSleeps
	speaksSoon
	pingsSoon
	few
	suspendIsSet // from here on: suspended
	idleLong
	areMany
)

func (c cause) suspends() bool { return c >= suspendIsSet }

func (a *Analyzer) cause(k socket.Key, h *history, now moment) cause {
	idle, asleep, usual := now.since(h.last()), now.since(a.slept), a.usualSleep()
	r, pings := a.rhythm(k, h)
	switch {
	case a.settings.Connections == host.ConnectionsPark:
		return parkIsSet
	case h.unacknowledged > 0:
		return unacknowledged
	case !h.established:
		return ended
	case a.settings.Connections == host.ConnectionsSuspend:
		return suspendIsSet
	case usual < shortTime && asleep < 2*usual:
		return shortSleeps
	case idle >= longIdle && (a.held >= many || asleep >= soon):
		return idleLong
	case a.expected(h):
		return speaksSoon
	case pings && r.usual < soon && a.worthwhile(r) && !a.internal(k):
		return pingsSoon
	case a.held < many:
		return few
	}
	return areMany
}

func (a *Analyzer) words(k socket.Key, c cause, h *history, now moment) string {
	held, idle := count(a.held, "connection")+" held", "idle for "+words(now.since(h.last()))
	switch c {
	case parkIsSet:
		return "connections: park is set"
	case unacknowledged:
		return fmt.Sprintf("its peer has %d bytes unacknowledged", h.unacknowledged)
	case ended:
		return "its peer has ended it"
	case shortSleeps:
		return fmt.Sprintf("%s, but the service usually sleeps for %s", idle, words(a.usualSleep()))
	case speaksSoon:
		return fmt.Sprintf("%s, usual gap %s", idle, words(h.gap))
	case pingsSoon:
		r, _ := a.rhythm(k, h)
		return fmt.Sprintf("%s, its own ping is sent every %s", idle, words(r.usual))
	case few:
		return idle + ", " + held
	case suspendIsSet:
		return "connections: suspend is set"
	case idleLong:
		return idle
	}
	return held
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

// Waits reports whether a peer has not acknowledged all, as far as is known:
// another look may find that it has.
func (a *Analyzer) Waits() bool {
	for _, h := range a.all {
		if h.unacknowledged > 0 {
			return true
		}
	}
	return false
}

// AnySuspended reports whether Choose says so of any connection.
func (a *Analyzer) AnySuspended(now time.Time) bool {
	n := a.moment(now)
	for k, h := range a.all {
		if a.cause(k, h, n).suspends() {
			return true
		}
	}
	return len(a.all) == 0 && a.Choose(socket.Key{}, now).Suspend
}
