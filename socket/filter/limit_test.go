package filter

import (
	"net/netip"
	"testing"
	"time"

	"torpor/kernel/nfqueue"
	"torpor/socket"
	"torpor/socket/segment"
)

func keyNumber(n int) socket.Key {
	return socket.Key{Local: netip.MustParseAddrPort("192.0.2.1:80"), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 4000)}
}

func TestLimiter(t *testing.T) {
	now := time.Hour
	l := newLimiter(1000, 10, now)
	if !l.allows(keyNumber(1), false, now) || l.allows(keyNumber(1), false, now+99*time.Millisecond) {
		t.Error("a connection is answered twice at once")
	}
	if !l.allows(keyNumber(1), true, now) || !l.allows(keyNumber(1), true, now+100*time.Millisecond) {
		t.Error("a probe is not answered")
	}
	allowed := 0
	for i := range 5000 {
		if l.allows(keyNumber(i+2), false, now+time.Duration(i)*time.Millisecond) { // for 5 s
			allowed++
		}
	}
	if allowed < 55 || allowed > 60 {
		t.Errorf("%d challenges in 5 s at 10 a second", allowed)
	}
	if !l.allows(keyNumber(9999), true, now+5*time.Second) {
		t.Error("challenges take from the budget of probes")
	}
	if n := testing.AllocsPerRun(100, func() { l.allows(keyNumber(3), false, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestReaderTakesNoMemory for packets of a connection that is not suspended, and
// for those that change nothing.
func TestReaderTakesNoMemory(t *testing.T) {
	b := &bed{asleep: map[socket.Key]*socket.Spec{}}
	r := newReader(&Filter{config: Config{Handler: b, Queues: 1}}, nil)
	for _, asleep := range []bool{false, true} {
		k := keyNumber(1)
		a := segment.Answer{Key: socket.Key{Local: k.Remote, Remote: k.Local}}
		packet := a.AppendTo(nil)
		if asleep {
			b.asleep[k] = &socket.Spec{Key: k}
		}
		n := testing.AllocsPerRun(100, func() {
			if r.passes(nfqueue.Packet{Bytes: packet, LenBytes: len(packet)}) == asleep {
				t.Error("passes:", asleep)
			}
		})
		if n != 0 {
			t.Errorf("asleep %v: %v allocations", asleep, n)
		}
	}
}
