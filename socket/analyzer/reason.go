package analyzer

import (
	"fmt"
	"strings"
	"time"

	"torpor/socket"
)

// Idle is for how long no data went over a connection; false if it is not
// known.
func (a *Analyzer) Idle(k socket.Key, now time.Time) (time.Duration, bool) {
	h := a.all[k]
	if h == nil {
		return 0, false
	}
	return a.moment(now).since(h.last()), true
}

// Describe says in words what is known of a connection of a service that is
// awake.
func (a *Analyzer) Describe(k socket.Key, now time.Time) string {
	h := a.all[k]
	if h == nil {
		return "new"
	}
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if h.unread > 0 {
		add("%d bytes unread", h.unread)
	}
	if h.unacknowledged > 0 {
		add("its peer has %d bytes unacknowledged", h.unacknowledged)
	}
	if !h.established {
		add("its peer has ended it")
	}
	if h.streak != never && a.moment(now).since(h.streak) >= streamTime {
		add("in use for %s", words(a.moment(now).since(h.streak)))
	}
	if r, ok := a.rhythm(k, h); ok && !a.internal(k) {
		add("its own ping is sent every %s", words(r.usual))
	}
	if gap, ok := h.usual(); ok {
		add("usual gap %s", words(gap))
	}
	if a.internal(k) {
		add("both ends are its own")
	}
	if h.keepAlive {
		add("keepalive")
	}
	if h.repeated > 0 {
		add("%s sent again", count(int(h.repeated), "segment"))
	}
	return strings.Join(parts, ", ")
}

// Reasons says in words what is known of the service, a line each.
func (a *Analyzer) Reasons(now time.Time) []string {
	var lines []string
	if a.asleep {
		lines = a.keeping(a.moment(now))
	}
	lines = append(lines, a.pings(now)...)
	if usual := a.usualSleep(); usual > 0 {
		lines = append(lines, "usual sleep "+words(usual))
	}
	return lines
}

// keeping says how connections are kept, and why that is so of the one that was
// idle longest.
func (a *Analyzer) keeping(now moment) []string {
	type kind struct {
		n    int
		key  socket.Key
		idle *history // longest
		why  cause
	}
	var parked, suspended kind
	for k, h := range a.all {
		c := a.cause(k, h, now)
		of := &parked
		if c.suspends() {
			of = &suspended
		}
		if of.n++; of.n == 1 || h.last() < of.idle.last() {
			of.key, of.idle, of.why = k, h, c
		}
	}
	var lines []string
	if parked.n > 0 {
		lines = append(lines, fmt.Sprintf("park %s: %s", count(parked.n, "connection"), a.words(parked.key, parked.why, parked.idle, now)))
	}
	if suspended.n > 0 {
		lines = append(lines, fmt.Sprintf("suspend %s: %s", count(suspended.n, "connection"), a.words(suspended.key, suspended.why, suspended.idle, now)))
	}
	return lines
}

// pings says which are known.
func (a *Analyzer) pings(now time.Time) []string {
	var met int
	var often rhythm
	var to socket.Key // of the most frequent ones
	for k, h := range a.all {
		r, ok := a.rhythm(k, h)
		switch {
		case !ok || a.internal(k):
		case a.worthwhile(r):
			met++
		case often.usual == 0 || r.usual < often.usual:
			often, to = r, k
		}
	}
	var lines []string
	if next, ok := a.NextWake(now); ok {
		lines = append(lines, fmt.Sprintf("own pings on %s, the next to %s in %s", count(met, "connection"), next.Key.Remote, words(next.Due.Sub(now))))
	}
	if often.usual > 0 {
		lines = append(lines, fmt.Sprintf("quiet for %s between its own pings to %s only: it sleeps after %s", words(often.usual), to.Remote, words(a.settings.SleepAfter)))
	}
	return lines
}
