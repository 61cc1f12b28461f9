package analyzer

import (
	"fmt"
	"time"

	"torpor/host"
	"torpor/socket"
)

// Settings are what a service's owner wants.
type Settings struct {
	SleepAfter  time.Duration // quiet time before it sleeps
	Connections host.ConnectionPolicy
}

// Analyzer has the histories of a service's connections.
type Analyzer struct {
	settings Settings
	begin    time.Time
	all      map[socket.Key]*history
	ports    map[uint16]*habit // local ones
	look     uint32
	lastLook moment

	asleep bool
	held   int    // connections, while asleep
	slept  moment // when it last fell asleep
	awake  moment // when it last woke, or was found
	sleeps [keptSleeps]time.Duration
	n      int // of sleeps, the latest last
}

// keptSleeps is how many sleeps make a usual one.
const keptSleeps = 5

// New returns one that knows nothing, of a service that is awake.
func New(s Settings, now time.Time) *Analyzer {
	return &Analyzer{settings: s, begin: now, all: map[socket.Key]*history{}, ports: map[uint16]*habit{}, slept: never}
}

// Set changes the settings.
func (a *Analyzer) Set(s Settings) { a.settings = s }

// Len is how many connections are known.
func (a *Analyzer) Len() int { return len(a.all) }

// Quiet is how long it has to be quiet before it sleeps again when it was awake
// for a ping only.
func (a *Analyzer) Quiet() time.Duration { return min(a.settings.SleepAfter, time.Second) }

// Observe takes a look at all connections. Those that are not among them are
// gone. The first look only finds what is there.
func (a *Analyzer) Observe(now time.Time, all []Observation) Activity {
	n := a.moment(now)
	a.look++
	var s scene
	for i := range all {
		o := &all[i]
		h := a.all[o.Key]
		if h == nil {
			h = a.found(o, n, &s)
			a.all[o.Key] = h
		} else {
			a.observe(h, o, n, &s)
		}
		h.look = a.look
		if o.Unread > 0 {
			s.unread++
		}
		if o.Unacknowledged > 0 {
			s.unsent++
		}
	}
	if len(a.all) > len(all) {
		for k, h := range a.all {
			if h.look != a.look {
				delete(a.all, k)
			}
		}
	}
	a.lastLook = n
	return s.activity(n)
}

// Found notes a connection that has no socket, of a service that sleeps.
func (a *Analyzer) Found(k socket.Key, since time.Time) {
	if a.all[k] == nil {
		a.all[k] = &history{lastIn: never, lastOut: never, streak: never, first: a.moment(since), look: a.look, established: true}
	}
}

func (a *Analyzer) found(o *Observation, now moment, s *scene) *history {
	h := &history{lastIn: never, lastOut: never, streak: never, first: now}
	began := h.observe(o, now)
	h.peers = began == byPeer
	h.ping.last = max(a.lastLook, a.awake) // not before
	if a.look > 1 && began == byItself {
		h.ping.add(h.lastOut, false)
	}
	if a.look == 1 {
		h.ping.last = now
		h.first = min(now, max(h.lastIn, h.lastOut))
		if h.first == never {
			h.first = now
		}
	} else if max(h.lastIn, h.lastOut) > a.lastLook {
		s.used = true
	}
	return h
}

// observe looks at a connection that is known.
func (a *Analyzer) observe(h *history, o *Observation, now moment, s *scene) {
	lastIn, last := h.lastIn, h.last()
	t := h.observe(o, now)
	if t == silent {
		h.streak = never
		a.lapse(o.Key, h, now)
		return
	}
	streams := h.streak != never
	if !streams {
		h.streak = now
	}
	switch t {
	case byPeer:
		if !streams && h.lastIn > lastIn {
			h.spoke(h.lastIn.since(last), a.settings.SleepAfter)
		}
		h.peers = true
	case byItself:
		a.pinged(o.Key, h, streams)
		h.peers = false
	}
	r, regular := a.rhythm(o.Key, h)
	switch {
	case t != byPeer && regular && a.worthwhile(r) && !a.internal(o.Key):
		s.own = true
	case t == byItself && regular && !streams:
		s.used, s.ping, s.often = true, o.Key, r
	default:
		s.used = true
		if !s.data || h.streak < s.streak {
			s.data, s.streak, s.stream = true, h.streak, o.Key
		}
	}
	a.lapse(o.Key, h, now)
}

// pinged notes an exchange that the service began. What goes on between all
// looks is no ping.
func (a *Analyzer) pinged(k socket.Key, h *history, streams bool) {
	if streams {
		return
	}
	awake := h.ping.begun && h.ping.last > a.slept
	// Over a sleep an interval only shows whether the wake was in time. It is not
	// learnt from: a little late each time, they would get longer and longer.
	if r, ok := a.rhythm(k, h); ok && !awake && h.ping.woken {
		if !r.like(h.lastOut.since(h.ping.last)) {
			a.disappointed(k, h)
		} else if b := a.borrowed(k, h); b != nil {
			b.met++
		}
	}
	_, regular := h.ping.rhythm()
	h.ping.add(h.lastOut, awake)
	if r, ok := h.ping.rhythm(); ok && !regular {
		a.teach(k, r)
	}
}

// lapse forgets pings that do not come any more.
func (a *Analyzer) lapse(k socket.Key, h *history, now moment) {
	if a.asleep {
		return
	}
	if r, ok := a.rhythm(k, h); ok && h.ping.lapsed(now, a.awake, r) {
		a.disappointed(k, h)
	}
}

// internal reports whether the other end of a connection is the service's too:
// nobody else waits for what is sent on it.
func (a *Analyzer) internal(k socket.Key) bool {
	_, ok := a.all[socket.Key{Local: k.Remote, Remote: k.Local}]
	return ok
}

// Slept begins a sleep with so many connections. Since is now, or earlier if
// the service was found asleep.
func (a *Analyzer) Slept(since time.Time, held int) {
	a.asleep, a.slept, a.held = true, a.moment(since), held
}

// Woke ends a sleep. It was ahead of a ping, or something else came first.
func (a *Analyzer) Woke(now time.Time, ahead bool) {
	n := a.moment(now)
	if a.n == keptSleeps {
		copy(a.sleeps[:], a.sleeps[1:])
		a.n--
	}
	a.sleeps[a.n] = n.since(a.slept)
	a.n++
	if ahead {
		a.await(n)
	}
	a.asleep, a.held, a.awake = false, 0, n
}

// await notes for which pings it was woken.
func (a *Analyzer) await(now moment) {
	for k, h := range a.all {
		r, ok := a.rhythm(k, h)
		if !ok || h.ping.woken {
			continue
		}
		if at, _, ok := h.ping.wakeAfter(a.slept, r); ok && now >= at {
			h.ping.awaited, h.ping.woken = now, true
		}
	}
}

// scene collects what is seen in one look.
type scene struct {
	unread, unsent  int // connections
	used, own, data bool
	ping            socket.Key // one that keeps it awake
	often           rhythm
	stream          socket.Key // on which data went longest, if data
	streak          moment
}

// streamTime is after how long without a silence a connection streams.
const streamTime = 10 * time.Second

func (s *scene) activity(now moment) Activity {
	act := Activity{Own: s.own}
	switch {
	case s.unread > 0:
		act.Used = fmt.Sprintf("%s it has not read", haveData(s.unread))
	case s.unsent > 0:
		act.Used = fmt.Sprintf("%s the peer has not acknowledged", haveData(s.unsent))
	case s.data && now.since(s.streak) >= streamTime:
		act.Used = fmt.Sprintf("the connection with %s has been in use for %s", s.stream.Remote, words(now.since(s.streak)))
	case s.often.usual > 0 && !s.data:
		act.Used = fmt.Sprintf("it sends to %s by itself every %s", s.ping.Remote, words(s.often.usual))
	case s.used:
		act.Used = "data on a connection"
	}
	return act
}

func haveData(n int) string {
	if n == 1 {
		return "1 connection has data"
	}
	return fmt.Sprintf("%d connections have data", n)
}
