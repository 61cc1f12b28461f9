package analyzer

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"torpor/host"
	"torpor/socket"
)

func TestTurns(t *testing.T) {
	at := func(seconds ...float64) []moment {
		var all []moment
		for _, s := range seconds {
			all = append(all, moment(s*float64(time.Second)))
		}
		return all
	}
	for _, test := range []struct {
		name            string
		before          []moment // lastIn, lastOut
		peers           bool
		in, out         uint32
		at              []moment // lastIn, lastOut
		acksIn, acksOut uint32
		want            turn
	}{
		{"request", at(1, 2), true, 1, 0, at(10, 2), 0, 0, byPeer},
		{"its answer, in the next look", at(10, 2), true, 0, 1, at(10, 11), 0, 0, byPeer},
		{"both in one look", at(1, 2), true, 1, 1, at(10, 10.1), 1, 0, byPeer},
		{"ping", at(1, 2), true, 0, 1, at(1, 10), 1, 0, byItself},
		{"its answer, in the next look", at(1, 10), false, 1, 0, at(10.2, 10), 0, 1, answered},
		{"too late for an answer", at(1, 10), false, 1, 0, at(15, 10), 0, 1, byPeer},
		{"ping and answer in one look", at(1, 2), true, 1, 1, at(10.1, 10), 0, 1, byItself},
		{"next ping after an answer", at(10.2, 10), false, 0, 1, at(10.2, 20), 1, 0, byItself},
		{"too close to tell, the answer is acknowledged", at(1, 2), true, 1, 1, at(10, 10), 0, 1, byItself},
		{"too close to tell, the peer acknowledges", at(1, 2), true, 1, 1, at(10, 10), 1, 0, byPeer},
		{"too close to tell, both acknowledge", at(1, 2), true, 1, 1, at(10, 10), 1, 1, byPeer},
		{"answer and the next request", at(10, 2), true, 1, 1, at(11, 10.5), 0, 0, byPeer},
		{"first data, the service's", []moment{never, never}, false, 0, 1, []moment{never, 5}, 0, 0, byItself},
		{"first data, the peer's", []moment{never, never}, false, 1, 0, []moment{5, never}, 0, 0, byPeer},
	} {
		h := history{lastIn: test.before[0], lastOut: test.before[1], peers: test.peers}
		if got := h.turn(test.in, test.out, test.at[0], test.at[1], test.acksIn, test.acksOut); got != test.want {
			t.Errorf("%s: turn is %d, want %d", test.name, got, test.want)
		}
	}
}

func TestRhythms(t *testing.T) {
	for _, test := range []struct {
		name      string
		intervals []uint32
		doubts    uint8
		want      rhythm
		ok        bool
	}{
		{"too few", []uint32{2000, 2000}, 0, rhythm{}, false},
		{"three", []uint32{2000, 2010, 1990}, 0, rhythm{ms(1990), ms(2000), ms(2010)}, true},
		{"one is longer", []uint32{2000, 2000, 2401}, 0, rhythm{}, false},
		{"one just not", []uint32{2000, 2000, 2400}, 0, rhythm{ms(2000), ms(2000), ms(2400)}, true},
		{"only the latest count", []uint32{100, 7000, 30, 2000, 2010, 1990}, 0, rhythm{ms(1990), ms(2000), ms(2010)}, true},
		{"older ones widen", []uint32{1800, 7000, 30, 2000, 2010, 1990}, 0, rhythm{ms(1800), ms(2000), ms(2010)}, true},
		{"one doubt", []uint32{2000, 2010, 1990}, 1, rhythm{}, false},
		{"one doubt, four", []uint32{2000, 2010, 1990, 2000}, 1, rhythm{ms(1990), ms(2000), ms(2010)}, true},
		{"no time between", []uint32{0, 0, 0}, 0, rhythm{}, false},
	} {
		p := ping{n: uint8(len(test.intervals)), doubts: test.doubts}
		copy(p.intervals[:], test.intervals)
		if got, ok := p.rhythm(); got != test.want || ok != test.ok {
			t.Errorf("%s: rhythm is %v, %v", test.name, got, ok)
		}
	}
}

// asleep returns an analyzer of a service with connections that fell asleep at
// start plus an hour.
func asleep(s Settings, held int, change func(*history)) *Analyzer {
	a := New(s, start)
	for i := range held {
		a.Found(testKey(i), start)
	}
	h := a.all[testKey(0)]
	h.lastIn, h.established = moment(time.Hour-s.SleepAfter), true
	change(h)
	a.Slept(start.Add(time.Hour), held)
	return a
}

func TestChoices(t *testing.T) {
	auto := Settings{SleepAfter: time.Second}
	for _, test := range []struct {
		name     string
		settings Settings
		held     int
		asleep   time.Duration
		change   func(*history)
		want     Choice
	}{
		{"few", auto, 3, time.Minute, func(*history) {}, Choice{false, "idle for 61 s, 3 connections held"}},
		{"few, long", auto, 3, 12 * time.Minute, func(*history) {}, Choice{true, "idle for 12 m"}},
		{"idle long already, just asleep", auto, 1, time.Second, func(h *history) { h.lastIn = 0 }, Choice{false, "idle for 60 m, 1 connection held"}},
		{"idle long already", auto, 1, time.Minute, func(h *history) { h.lastIn = 0 }, Choice{true, "idle for 61 m"}},
		{"many", auto, 512, 0, func(*history) {}, Choice{true, "512 connections held"}},
		{"speaks often", auto, 512, time.Minute, func(h *history) { h.gap, h.gaps = 3*time.Second, 3 }, Choice{false, "idle for 61 s, usual gap 3 s"}},
		{"spoke often", auto, 512, 11 * time.Minute, func(h *history) { h.gap, h.gaps = 3*time.Second, 3 }, Choice{true, "idle for 11 m"}},
		{"spoke often twice", auto, 512, time.Minute, func(h *history) { h.gap, h.gaps = 3*time.Second, 2 }, Choice{true, "512 connections held"}},
		{"speaks seldom", auto, 512, time.Minute, func(h *history) { h.gap, h.gaps = 10*time.Minute, 3 }, Choice{true, "512 connections held"}},
		{"pings", auto, 512, time.Minute, func(h *history) { h.ping = ping{begun: true, n: 3, intervals: [6]uint32{20000, 20000, 20000}} }, Choice{false, "idle for 61 s, its own ping is sent every 20 s"}},
		{"pings seldom", auto, 512, time.Minute, func(h *history) { h.ping = ping{begun: true, n: 3, intervals: [6]uint32{90000, 90000, 90000}} }, Choice{true, "512 connections held"}},
		{"not acknowledged", auto, 512, time.Hour, func(h *history) { h.unacknowledged = 40 }, Choice{false, "its peer has 40 bytes unacknowledged"}},
		{"half closed", auto, 512, time.Hour, func(h *history) { h.established = false }, Choice{false, "its peer has ended it"}},
		{"park", Settings{Connections: host.ConnectionsPark}, 512, time.Hour, func(*history) {}, Choice{false, "connections: park is set"}},
		{"suspend", Settings{Connections: host.ConnectionsSuspend}, 1, 0, func(*history) {}, Choice{true, "connections: suspend is set"}},
	} {
		a := asleep(test.settings, test.held, test.change)
		if got := a.Choose(testKey(0), start.Add(time.Hour+test.asleep)); got != test.want {
			t.Errorf("%s: choice is %+v, want %+v", test.name, got, test.want)
		}
	}
}

// TestShortSleepsSuspendNothing keeps the connections of a service parked that is
// woken all the time, until it is not any more.
func TestShortSleepsSuspendNothing(t *testing.T) {
	a := asleep(Settings{SleepAfter: time.Second}, 100, func(*history) {})
	now := start.Add(time.Hour)
	for range 4 {
		a.Woke(now.Add(2*time.Second), false)
		now = now.Add(4 * time.Second)
		a.Slept(now, 100)
	}
	if c, want := a.Choose(testKey(0), now.Add(3*time.Second)), (Choice{false, "idle for 20 s, but the service usually sleeps for 2 s"}); c != want {
		t.Errorf("choice is %+v, want %+v", c, want)
	}
	if c, want := a.Choose(testKey(0), now.Add(5*time.Second)), (Choice{true, "100 connections held"}); c != want {
		t.Errorf("choice is %+v, want %+v", c, want)
	}
}

func TestActivities(t *testing.T) {
	const settle = 90 * time.Second
	r := Settings{SleepAfter: 3 * time.Second}
	pings := func(period time.Duration) []segment {
		return exchanges(times(period, time.Hour, func() time.Duration { return period }), true, func() time.Duration { return ms(2) })
	}
	for _, test := range []struct {
		name     string
		segments []segment
		now      time.Duration // of the look, one second after the last one
		want     Activity
	}{
		{"nothing", nil, settle, Activity{}},
		{"request", []segment{{settle, false}}, settle, Activity{Used: "data on a connection"}},
		{"ping, not known yet", pings(20 * time.Second), 40 * time.Second, Activity{Used: "data on a connection"}},
		{"ping", pings(20 * time.Second), 100 * time.Second, Activity{Own: true}},
		{"ping too often", pings(3500 * time.Millisecond), 91 * time.Second, Activity{Used: "it sends to 10.0.0.1:4000 by itself every 3.5 s"}},
		{"stream", exchanges(times(0, time.Hour, func() time.Duration { return ms(200) }), true, nil), settle,
			Activity{Used: "the connection with 10.0.0.1:4000 has been in use for 89 s"}},
	} {
		c := &traffic{key: testKey(1), segments: test.segments, coarse: ms(1)}
		a := watched(r, time.Second, test.now-time.Second, c)
		if got := watch(a, test.now, c); got != test.want {
			t.Errorf("%s: activity is %+v, want %+v", test.name, got, test.want)
		}
	}
	queues := Observation{Key: testKey(1), Established: true, Unread: 5}
	if got := New(r, start).Observe(start, []Observation{queues}); got.Used != "1 connection has data it has not read" {
		t.Errorf("activity is %+v", got)
	}
}

// TestForgetsPings stops sending after a wake ahead of a ping.
func TestForgetsPings(t *testing.T) {
	c := &traffic{key: testKey(1), coarse: ms(1),
		segments: exchanges(times(time.Second, time.Minute, func() time.Duration { return 10 * time.Second }), true, nil)}
	a := watched(Settings{SleepAfter: time.Second}, ms(250), 53*time.Second, c)
	now := start.Add(53 * time.Second)
	var wakes []time.Duration
	for {
		a.Slept(now, 1)
		wake, ok := a.NextWake(now)
		if !ok {
			break
		}
		if got, want := wake.Reason(), "its own ping to 10.0.0.1:4000 is due"; got != want {
			t.Fatalf("reason is %q, want %q", got, want)
		}
		a.Woke(wake.At, true)
		wakes = append(wakes, wake.At.Sub(start))
		if len(wakes) > 5 {
			t.Fatalf("woken in vain at %v", wakes)
		}
		for now = wake.At; a.Stay(now) != ""; now = now.Add(ms(100)) {
			a.Observe(now, []Observation{c.at(51 * time.Second)})
		}
	}
	if len(wakes) != patience {
		t.Errorf("woken at %v, want %d times", wakes, patience)
	}
	a.Woke(now.Add(time.Minute), false)
	a.Observe(now.Add(time.Minute), []Observation{c.at(51 * time.Second)})
	if _, ok := a.all[c.key].ping.rhythm(); ok {
		t.Error("pings are not forgotten")
	}
}

// TestInternalPings does not wake for what goes between the service's own
// processes.
func TestInternalPings(t *testing.T) {
	c := &traffic{key: testKey(1), coarse: ms(1),
		segments: exchanges(times(time.Second, time.Minute, func() time.Duration { return 10 * time.Second }), true, nil)}
	other := &traffic{key: socket.Key{Local: c.key.Remote, Remote: c.key.Local}, coarse: ms(1)}
	a := watched(Settings{SleepAfter: time.Second}, ms(250), 53*time.Second, c, other)
	a.Slept(start.Add(53*time.Second), 2)
	if wake, ok := a.NextWake(start.Add(53 * time.Second)); ok {
		t.Errorf("woken at %v", wake)
	}
	if d := a.Describe(c.key, start.Add(53*time.Second)); !strings.Contains(d, "both ends are its own") {
		t.Errorf("described as %q", d)
	}
}

// TestRestoredSockets goes on with a connection that has another socket.
func TestRestoredSockets(t *testing.T) {
	a := New(Settings{SleepAfter: time.Second}, start)
	o := Observation{Key: testKey(1), Established: true, SegmentsIn: 100, SegmentsOut: 100}
	a.Observe(start, []Observation{o})
	a.Slept(start.Add(2*time.Second), 1)
	a.Woke(start.Add(time.Minute), false)
	o.Socket, o.SegmentsIn, o.SegmentsOut, o.SinceIn, o.SinceOut = 7, 0, 0, 0, 0
	if act := a.Observe(start.Add(time.Minute), []Observation{o}); act != (Activity{}) {
		t.Errorf("a restored socket is activity: %+v", act)
	}
	if idle, ok := a.Idle(testKey(1), start.Add(time.Minute)); !ok || idle != time.Minute {
		t.Errorf("idle for %s, %v", idle, ok)
	}
	o.SegmentsIn = 1
	if act := a.Observe(start.Add(61*time.Second), []Observation{o}); act.Used == "" {
		t.Errorf("data on a restored socket is %+v", act)
	}
	a.Slept(start.Add(63*time.Second), 1)
	a.Woke(start.Add(70*time.Second), false)
	o.Socket = 8 // and has as many segments before anybody looks
	if act := a.Observe(start.Add(71*time.Second), []Observation{o}); act.Used == "" {
		t.Errorf("data on a socket restored again is %+v", act)
	}
}

// TestMemory bounds what many connections take, and that those which are gone
// take nothing.
func TestMemory(t *testing.T) {
	const n, limit = 100_000, 400
	o := make([]Observation, n)
	for i := range o {
		o[i] = Observation{Key: testKey(i), Established: true, SegmentsIn: 1, SegmentsOut: 1}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	a := New(Settings{SleepAfter: time.Second}, start)
	a.Observe(start, o)
	one := heap()
	begun := time.Now()
	for i := range 20 {
		for j := range o {
			o[j].SegmentsOut++
		}
		a.Observe(start.Add(time.Duration(i)*10*time.Second), o)
	}
	took := time.Since(begun) / 20
	each := (heap() - before) / n
	t.Logf("%d bytes a connection, %s a look", each, took)
	if each > limit || heap() > one+n*8 {
		t.Errorf("%d bytes a connection, %d after the first look", each, (one-before)/n)
	}
	a.Observe(start.Add(time.Hour), o[:10])
	if a.Len() != 10 {
		t.Errorf("%d connections are known, want 10", a.Len())
	}
	runtime.KeepAlive(a)
}

// TestNewConnectionsAreLikeOthers foretells the pings of a client that has just
// come by those of others on the same port, and not for long if it gets none.
func TestNewConnectionsAreLikeOthers(t *testing.T) {
	pings := func(n int, from, every time.Duration) *traffic {
		return &traffic{key: testKey(n), coarse: ms(1), segments: exchanges(times(from, time.Hour, func() time.Duration { return every }), true, nil)}
	}
	settings := Settings{SleepAfter: time.Second}
	old := []*traffic{pings(1, time.Second, 10*time.Second), pings(2, 4*time.Second, 10*time.Second)}
	for _, test := range []struct {
		name string
		new  *traffic
		met  bool
	}{
		{"gets pings", pings(3, 62*time.Second, 10*time.Second), true}, // came at 52 s
		{"gets none", &traffic{key: testKey(3), coarse: ms(1)}, false},
	} {
		a := watched(settings, ms(250), 51900*time.Millisecond, old...)
		watch(a, 52*time.Second, test.new) // the others are gone
		now := 53 * time.Second
		watch(a, now, test.new)
		wakes := 0
		for range 5 {
			a.Slept(start.Add(now), 1)
			wake, ok := a.NextWake(start.Add(now))
			if !ok {
				break
			}
			if early := start.Add(62*time.Second + time.Duration(wakes)*10*time.Second).Sub(wake.At); test.met && (early < 0 || early > ms(500)) {
				t.Errorf("%s: wake %d is %s ahead", test.name, wakes, early)
			}
			wakes++
			a.Woke(wake.At, true)
			for now = wake.At.Sub(start); a.Stay(start.Add(now)) != ""; now += ms(100) {
				watch(a, now, test.new)
			}
		}
		if want := map[bool]int{true: 5, false: patience}[test.met]; wakes != want {
			t.Errorf("%s: woken %d times, want %d", test.name, wakes, want)
		}
	}
}
