package analyzer

import (
	"slices"
	"time"
)

// moment is a time, counted from the analyzer's beginning.
type moment time.Duration

func (m moment) since(n moment) time.Duration { return time.Duration(m - n) }
func (m moment) add(d time.Duration) moment   { return m + moment(d) }

func (a *Analyzer) moment(t time.Time) moment { return moment(t.Sub(a.begin)) }
func (a *Analyzer) time(m moment) time.Time   { return a.begin.Add(time.Duration(m)) }

// never is before every moment.
const never = moment(-1 << 62)

// Pings are regular when leastIntervals follow each other that differ by no
// more than one part in tolerance from their median; one more for each time that
// a ping which was expected did not come: what is sent at random times passes
// for regular now and then.
const (
	leastIntervals = 3
	keptIntervals  = 6
	tolerance      = 5
)

// ping is what is known of the exchanges that the service begins on one
// connection. The zero value knows nothing.
type ping struct {
	last      moment // if not begun, when the connection was found
	awaited   moment // when the service was first woken for the next one; valid if woken
	intervals [keptIntervals]uint32
	n         uint8 // of intervals, the latest last
	begun     bool
	woken     bool
	doubts    uint8
}

// add notes one, whose interval counts if the service did not sleep in between.
func (p *ping) add(at moment, awake bool) {
	if p.begun && awake {
		if p.n == keptIntervals {
			copy(p.intervals[:], p.intervals[1:])
			p.n--
		}
		p.intervals[p.n] = uint32(min(max(at.since(p.last), 0)/time.Millisecond, 1<<32-1))
		p.n++
	}
	p.last, p.begun, p.woken = at, true, false
}

// disappoint drops what was learnt.
func (p *ping) disappoint() {
	*p = ping{doubts: min(p.doubts+1, keptIntervals-leastIntervals)}
}

// rhythm is how regular pings follow each other.
type rhythm struct{ shortest, usual, longest time.Duration }

// rhythm returns false if they are not regular.
func (p *ping) rhythm() (rhythm, bool) {
	needed := leastIntervals + p.doubts
	if p.n < needed {
		return rhythm{}, false
	}
	kept := p.intervals
	recent := kept[p.n-needed : p.n]
	slices.Sort(recent)
	median := recent[needed/2]
	like := func(n uint32) bool { return n >= median-median/tolerance && n <= median+median/tolerance }
	if median == 0 || !like(recent[0]) || !like(recent[needed-1]) {
		return rhythm{}, false
	}
	shortest, longest := recent[0], recent[needed-1]
	for _, n := range kept[:p.n-needed] { // older ones widen it if they are like them
		if like(n) {
			shortest, longest = min(shortest, n), max(longest, n)
		}
	}
	ms := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
	return rhythm{ms(shortest), ms(median), ms(longest)}, true
}

// like reports whether an interval belongs to the rhythm.
func (r rhythm) like(d time.Duration) bool {
	return d >= r.usual-r.usual/tolerance && d <= r.usual+r.usual/tolerance
}

// margin is how long before a ping the service is to be awake.
func (r rhythm) margin() time.Duration { return max(leastMargin, r.usual/100) }

// slack is how much later than ever a ping may come.
func (r rhythm) slack() time.Duration {
	return min(max(r.usual/10, 250*time.Millisecond), 3*time.Second)
}

const leastMargin = 5 * time.Millisecond

// patience is for how many periods a ping is waited for after a wake.
const patience = 2

// wakeAfter is when to wake for the first ping that can still be met; false if
// it was waited for long enough.
func (p *ping) wakeAfter(now moment, r rhythm) (at, due moment, ok bool) {
	due = p.last.add(r.shortest)
	if late := now.since(due.add(-r.margin())); late >= 0 {
		due = due.add((late/r.usual + 1) * r.usual)
	}
	at = due.add(-r.margin())
	if p.woken && at.since(p.awaited) > patience*r.usual-r.usual/2 {
		return 0, 0, false
	}
	return at, due, true
}

// pending reports whether the next one is waited for now: it is due, and not
// yet later than it ever was.
func (p *ping) pending(now moment, r rhythm, soon time.Duration) (due moment, ok bool) {
	due = p.last.add(r.shortest)
	if p.woken && now.since(due) > 0 { // a later one, after one that did not come
		due = due.add(now.since(due) / r.usual * r.usual)
	}
	from, to := due.add(-r.margin()-soon), due.add(r.longest-r.shortest+r.slack())
	return due, now >= from && now < to
}

// lapsed reports whether it did not come although the service was awake.
func (p *ping) lapsed(now, awake moment, r rhythm) bool {
	if p.woken {
		return now.since(p.awaited) >= patience*r.usual
	}
	return now.since(max(p.last, awake)) >= patience*r.usual+r.usual/2
}
