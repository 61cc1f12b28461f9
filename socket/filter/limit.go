package filter

import (
	"hash/maphash"
	"time"

	"torpor/socket"
)

// bucket lets perSecond things happen a second, as many at once.
type bucket struct {
	perSecond float64
	level     float64
	at        time.Duration
}

func (b *bucket) take(now time.Duration) bool {
	b.level = min(b.perSecond, b.level+(now-b.at).Seconds()*b.perSecond)
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

const (
	answerGap   = 100 * time.Millisecond // between two answers to a connection
	recentSlots = 512
)

// limiter bounds the answers of one reader. Those to peers that know where the
// connection is have a budget of their own: a flood of forgeries must not take
// it from them.
type limiter struct {
	probes, challenges bucket
	seed               maphash.Seed
	recent             []recentAnswer // by hash; the later one takes the place
}

type recentAnswer struct {
	hash uint64
	at   time.Duration
}

func newLimiter(probes, challenges float64, now time.Duration) limiter {
	return limiter{probes: bucket{probes, probes, now}, challenges: bucket{challenges, challenges, now}, seed: maphash.MakeSeed()}
}

// allows reports whether a connection may be answered, and counts it if so.
func (l *limiter) allows(k socket.Key, probe bool, now time.Duration) bool {
	if l.recent == nil { // most filters never answer
		l.recent = make([]recentAnswer, recentSlots)
	}
	hash := maphash.Comparable(l.seed, k)
	if probe {
		hash = ^hash
	}
	slot := &l.recent[hash%recentSlots]
	if slot.hash == hash && now-slot.at < answerGap {
		return false
	}
	b := &l.challenges
	if probe {
		b = &l.probes
	}
	if !b.take(now) {
		return false
	}
	*slot = recentAnswer{hash, now}
	return true
}
