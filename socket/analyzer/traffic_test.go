package analyzer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"torpor/socket"
)

// start is when all synthetic traffic begins.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testKey(n int) socket.Key {
	peer := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return socket.Key{Local: netip.MustParseAddrPort("192.0.2.1:80"), Remote: netip.AddrPortFrom(peer, 4000)}
}

// segment is one of data.
type segment struct {
	at  time.Duration // since start
	out bool
}

// traffic is what goes over one connection, in order.
type traffic struct {
	key       socket.Key
	segments  []segment
	coarse    time.Duration // the kernel's clock
	quickAcks bool
}

// at returns what the kernel tells at a time.
func (c *traffic) at(now time.Duration) Observation {
	o := Observation{Key: c.key, Established: true}
	tick := func(d time.Duration) time.Duration { return d / c.coarse * c.coarse }
	for i, s := range c.segments {
		if s.at > now {
			break
		}
		// Who gets data acknowledges it at once, or by data of its own.
		answered := i+1 < len(c.segments) && c.segments[i+1].out != s.out && c.segments[i+1].at-s.at < 40*time.Millisecond
		alone := !answered || c.quickAcks
		if s.out {
			o.SegmentsOut++
			o.SinceOut = tick(now) - tick(s.at)
			if alone {
				o.AcksIn++
			}
		} else {
			o.SegmentsIn++
			o.SinceIn = tick(now) - tick(s.at)
			if alone {
				o.AcksOut++
			}
		}
	}
	return o
}

// times returns when something happens that repeats, until an end.
func times(from, end time.Duration, next func() time.Duration) []time.Duration {
	var all []time.Duration
	for at := from; at < end; at += next() {
		all = append(all, at)
	}
	return all
}

func jittered(r *rand.Rand, d time.Duration, part float64) func() time.Duration {
	return func() time.Duration { return d + time.Duration((r.Float64()*2-1)*part*float64(d)) }
}

func random(r *rand.Rand, mean time.Duration) func() time.Duration {
	return func() time.Duration { return time.Duration(r.ExpFloat64()*float64(mean)) + time.Millisecond }
}

// exchanges begins one at each time; the answer comes after a delay, if any.
func exchanges(at []time.Duration, out bool, delay func() time.Duration) []segment {
	var all []segment
	for _, t := range at {
		all = append(all, segment{t, out})
		if delay != nil {
			all = append(all, segment{t + delay(), !out})
		}
	}
	return all
}

// watched feeds an analyzer with traffic while the service is awake.
func watched(s Settings, every, end time.Duration, all ...*traffic) *Analyzer {
	a := New(s, start)
	for now := time.Duration(0); now <= end; now += every {
		watch(a, now, all...)
	}
	return a
}

func watch(a *Analyzer, now time.Duration, all ...*traffic) Activity {
	o := make([]Observation, len(all))
	for i, c := range all {
		o[i] = c.at(now)
	}
	return a.Observe(start.Add(now), o)
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func (c *traffic) String() string {
	return fmt.Sprintf("%s with %d segments", c.key.Remote, len(c.segments))
}
