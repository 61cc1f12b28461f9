package analyzer

import (
	"fmt"
	"time"

	"torpor/socket"
)

// worthwhile reports whether a service with such pings sleeps between them: its
// quiet time is over clearly before the next.
func (a *Analyzer) worthwhile(r rhythm) bool {
	return a.settings.SleepAfter > 0 && r.shortest > a.settings.SleepAfter+a.settings.SleepAfter/4
}

// HasPings reports whether the service sends pings that it sleeps between.
func (a *Analyzer) HasPings() bool {
	for k, h := range a.all {
		if r, ok := a.rhythm(k, h); ok && a.worthwhile(r) && !a.internal(k) {
			return true
		}
	}
	return false
}

// Wake is when a sleeping service has to be woken, and for what.
type Wake struct {
	At  time.Time // ahead of Due
	Due time.Time // of the ping
	Key socket.Key
}

// Reason is why, for people.
func (w Wake) Reason() string { return fmt.Sprintf("its own ping to %s is due", w.Key.Remote) }

// NextWake returns the next one, if any.
func (a *Analyzer) NextWake(now time.Time) (next Wake, ok bool) {
	n := a.moment(now)
	first, firstDue := moment(0), moment(0)
	for k, h := range a.all {
		r, regular := a.rhythm(k, h)
		if !regular || !a.worthwhile(r) || a.internal(k) {
			continue
		}
		if at, due, more := h.ping.wakeAfter(n, r); more && (!ok || at < first) {
			first, firstDue, next.Key, ok = at, due, k, true
		}
	}
	if !ok {
		return Wake{}, false
	}
	next.At, next.Due = a.time(first), a.time(firstDue)
	return next, true
}

// Stay says why an otherwise quiet service shall not sleep now: a ping of its
// own is about to be sent, and it would have to be woken at once. Empty if it
// may sleep.
func (a *Analyzer) Stay(now time.Time) string {
	n, soon := a.moment(now), a.Quiet()
	for k, h := range a.all {
		r, regular := a.rhythm(k, h)
		if !regular || !a.worthwhile(r) || a.internal(k) {
			continue
		}
		due, pending := h.ping.pending(n, r, soon)
		switch {
		case pending && due > n:
			return fmt.Sprintf("its own ping to %s is due in %s", k.Remote, words(due.since(n)))
		case pending:
			return fmt.Sprintf("its own ping to %s is due", k.Remote)
		}
	}
	return ""
}
