package analyzer

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// kindOfTraffic is what a synthetic connection does.
type kindOfTraffic struct {
	name   string
	pings  time.Duration // period; 0 if it has none
	jitter float64
	make   func(r *rand.Rand, end time.Duration) []segment
}

func pingsEvery(name string, period time.Duration, jitter float64, delay time.Duration) kindOfTraffic {
	return kindOfTraffic{name, period, jitter, func(r *rand.Rand, end time.Duration) []segment {
		at := times(time.Duration(r.Int64N(int64(period))), end, jittered(r, period, jitter))
		if delay == 0 {
			return exchanges(at, true, nil)
		}
		return exchanges(at, true, random(r, delay))
	}}
}

var kindsOfTraffic = []kindOfTraffic{
	pingsEvery("events without answers", 15*time.Second, 0.01, 0),
	pingsEvery("pings answered at once", 20*time.Second, 0.02, ms(1)/5),
	pingsEvery("pings answered from far away", 30*time.Second, 0.05, ms(80)),
	pingsEvery("pings that are not exact", 12*time.Second, 0.08, ms(5)),
	{name: "regular requests", make: func(r *rand.Rand, end time.Duration) []segment {
		return exchanges(times(0, end, jittered(r, 10*time.Second, 0.02)), false, random(r, ms(3)))
	}},
	{name: "regular requests answered at once", make: func(r *rand.Rand, end time.Duration) []segment {
		return exchanges(times(0, end, jittered(r, 7*time.Second, 0.02)), false, random(r, ms(1)/5))
	}},
	{name: "slow answers", make: func(r *rand.Rand, end time.Duration) []segment {
		return exchanges(times(0, end, jittered(r, 12*time.Second, 0.02)), false, jittered(r, 2*time.Second, 0.1))
	}},
	{name: "random requests", make: func(r *rand.Rand, end time.Duration) []segment {
		return exchanges(times(0, end, random(r, 8*time.Second)), false, random(r, ms(1)))
	}},
	{name: "stream", make: func(r *rand.Rand, end time.Duration) []segment {
		return exchanges(times(0, end, jittered(r, ms(40), 0.5)), true, nil)
	}},
	{name: "upload", make: func(r *rand.Rand, end time.Duration) []segment {
		return exchanges(times(0, end, jittered(r, ms(30), 0.5)), false, nil)
	}},
}

// TestPredictsPings compares what is learnt from synthetic traffic with what it
// was made of.
func TestPredictsPings(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const end, every = 4 * time.Minute, 500 * time.Millisecond
	for i, kind := range kindsOfTraffic {
		for j := range 10 {
			c := &traffic{key: testKey(i*100 + j), segments: kind.make(r, end+2*time.Minute), coarse: ms(1 + 3*(j&1))}
			slices.SortFunc(c.segments, func(a, b segment) int { return int(a.at - b.at) })
			a := watched(Settings{SleepAfter: 3 * time.Second}, every, end, c)
			rhythm, regular := a.all[c.key].ping.rhythm()
			if regular != (kind.pings > 0) {
				t.Errorf("%s, %d: regular is %v: %v", kind.name, j, regular, a.all[c.key].ping)
				continue
			}
			if !regular {
				continue
			}
			if off := (rhythm.usual - kind.pings).Abs(); float64(off) > (kind.jitter+0.001)*float64(kind.pings) {
				t.Errorf("%s, %d: period is %s, want %s", kind.name, j, rhythm.usual, kind.pings)
			}
			if a.Stay(start.Add(end)) != "" {
				continue // it would not sleep just now: one is due
			}
			next := c.segments[slices.IndexFunc(c.segments, func(s segment) bool { return s.out && s.at > end })].at
			wake, ok := a.NextWake(start.Add(end))
			if !ok {
				t.Errorf("%s, %d: never woken for the ping at %s", kind.name, j, next)
				continue
			}
			early := start.Add(next).Sub(wake.At)
			// What was drawn so far need not be the extremes.
			if margin := time.Duration(2.2 * kind.jitter * float64(kind.pings)); early < -margin || early > margin+rhythm.margin()+ms(5) {
				t.Errorf("%s, %d: woken %s ahead of the ping", kind.name, j, early)
			}
		}
	}
}

// TestRandomSendersAreDoubted has a service send at random times, as a chat does: it
// is woken in vain ever less often.
func TestRandomSendersAreDoubted(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	looks, regular := 0, 0
	for i := range 40 {
		c := &traffic{key: testKey(i), segments: exchanges(times(0, 30*time.Minute, random(r, 10*time.Second)), true, nil), coarse: ms(1)}
		a := New(Settings{SleepAfter: time.Second}, start)
		for now := time.Duration(0); now < 30*time.Minute; now += time.Second {
			watch(a, now, c)
			looks++
			if _, ok := a.all[c.key].ping.rhythm(); ok {
				regular++
			}
		}
	}
	t.Logf("taken for regular in %.2f %% of the time", float64(regular)*100/float64(looks))
	if regular > looks/20 {
		t.Errorf("taken for regular in %d looks of %d", regular, looks)
	}
}

// TestSimulatesSleeps lives through an hour of a service with pings that sleeps
// whenever it may: no ping is late by more than its jitter, and it sleeps most
// of the time.
func TestSimulatesSleeps(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const period, settle = 20 * time.Second, 2 * time.Minute
	a := New(Settings{SleepAfter: 3 * time.Second}, start)
	c := &traffic{key: testKey(1), coarse: ms(1)}
	due, late, slept, wakes, quietSince := period, time.Duration(0), time.Duration(0), 0, time.Duration(0)
	own := time.Duration(-1) // since when only own pings went
	for now := time.Duration(0); now < time.Hour; now += ms(100) {
		if now >= due { // its timer
			late = max(late, now-due-ms(100))
			c.segments = append(c.segments, segment{now, true}, segment{now + ms(1), false})
			due = now + jittered(r, period, 0.01)()
		}
		act := watch(a, now, c)
		switch {
		case act.Used != "":
			quietSince = now
		case act.Own:
			own = now
		}
		if now < settle || now-quietSince < 3*time.Second || now-own < time.Second || a.Stay(start.Add(now)) != "" {
			continue
		}
		a.Slept(start.Add(now), 1)
		wake, ok := a.NextWake(start.Add(now))
		if !ok {
			t.Fatalf("asleep at %s for ever: %+v", now, a.all[c.key])
		}
		woken := wake.At.Sub(start)
		slept += woken - now
		now = woken
		a.Woke(start.Add(now), true)
		own = now
		wakes++
	}
	t.Logf("slept %s of 58 minutes, %d wakes, latest ping %s late", slept, wakes, late)
	if late > ms(100) || slept < 45*time.Minute || wakes < 150 {
		t.Errorf("slept %s with %d wakes; a ping was %s late", slept, wakes, late)
	}
}
