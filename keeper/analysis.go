package keeper

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"torpor/checkpoint"
	"torpor/host"
	"torpor/kernel/inet"
	"torpor/socket"
	"torpor/socket/analyzer"
)

// settings are what the analyzer has to know of a target.
func (t *Target) settings() analyzer.Settings {
	return analyzer.Settings{SleepAfter: t.SleepAfter, Connections: t.Connections}
}

func (s *service) retarget(t Target) {
	s.target = t
	s.analyzer.Set(t.settings())
	s.ticks.Reset(s.tickEvery())
	s.setAlarm(time.Now())
}

// freshLook is how old a look may be when a service falls asleep. One that is
// put to sleep by a command may have connections that nobody has looked at.
const freshLook = 100 * time.Millisecond

// look shows the analyzer the connections as they are.
func (s *service) look(now time.Time) (analyzer.Activity, error) {
	s.lookedAt = now
	all, err := inet.ReadConnections(s.target.InitPID)
	if err != nil {
		return analyzer.Activity{}, err
	}
	observations := make([]analyzer.Observation, len(all))
	for i, c := range all {
		observations[i] = analyzer.Observation{
			Key: socket.Key{Local: c.Local, Remote: c.Remote}, Established: c.Established, Socket: c.Socket,
			Unread: c.Unread, Unacknowledged: c.Unacknowledged,
			SegmentsIn: c.SegmentsIn, SegmentsOut: c.SegmentsOut, AcksIn: c.AcksIn, AcksOut: c.AcksOut,
			SinceIn: c.SinceIn, SinceOut: c.SinceOut, KeepAlive: c.KeepAlive, Repeated: c.Repeated,
		}
	}
	return s.analyzer.Observe(now, observations), nil
}

// soon reports whether a connection is better not suspended.
func (s *service) soon(local, remote netip.AddrPort) bool {
	return s.analyzer.Soon(socket.Key{Local: unmapped(local), Remote: unmapped(remote)})
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// recall shows the analyzer the connections of a service that was found asleep.
// What an earlier keeper has learnt of them is lost.
func (s *service) recall(spec *checkpoint.Spec) {
	if _, err := s.look(time.Now()); err != nil {
		s.event(host.EventError, err.Error(), nil)
	}
	if s.suspension != nil {
		for k := range s.suspension.image.All() {
			s.analyzer.Found(k, spec.Created)
		}
	}
	s.slept(spec.Created, connections(spec))
}

// newAlarm returns a timer that is not set.
func newAlarm() *time.Timer {
	t := time.NewTimer(math.MaxInt64)
	t.Stop()
	return t
}

// slept tells the analyzer of a sleep.
func (s *service) slept(since time.Time, held int) {
	s.idle.ahead = false
	s.analyzer.Slept(since, held)
	s.setAlarm(time.Now())
}

// woke tells it of a wake.
func (s *service) woke(ahead bool) {
	s.alarm.Stop()
	s.analyzer.Woke(time.Now(), ahead)
	if ahead {
		s.idle.resetAhead()
	} else {
		s.idle.reset()
	}
}

// setAlarm sets the alarm for the next ping of a sleeping service's own, by what
// its last wake took ahead of the time to be awake.
func (s *service) setAlarm(now time.Time) {
	s.alarm.Stop()
	st := s.snapshot()
	if st.State != host.Asleep || s.target.SleepAfter == 0 {
		return
	}
	var ok bool
	if s.due, ok = s.analyzer.NextWake(now); ok {
		lead := min(st.LastWake, s.analyzer.Quiet()/2) // or it would be woken as soon as it sleeps
		s.alarm.Reset(s.due.At.Add(-lead).Sub(now))
	}
}

// wakeAhead wakes the service for a ping of its own.
func (s *service) wakeAhead() {
	if _, err := s.wakeFor(s.due.Reason(), true); err != nil {
		s.event(host.EventError, "wake: "+err.Error(), nil)
		s.setAlarm(time.Now())
	}
}

// sockets lists the connections as they are kept, and what is known of them;
// brief leaves the list out.
func (s *service) sockets(brief bool) (*SocketReport, error) {
	now := time.Now()
	st := s.snapshot()
	report := &SocketReport{Reasons: s.analyzer.Reasons(now)}
	if st.ConnectionsParkedWhy != "" {
		report.Reasons = append(report.Reasons, "parked: "+st.ConnectionsParkedWhy)
	}
	if brief || st.State == host.Exited {
		return report, nil
	}
	all, err := inet.ReadConnections(s.target.InitPID)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		report.Connections = append(report.Connections, s.describe(&c, now, st))
	}
	if s.suspension != nil {
		for k := range s.suspension.image.All() {
			idle, _ := s.analyzer.Idle(k, now)
			report.Connections = append(report.Connections, Connection{k.Local, k.Remote, ConnectionSuspended, idle, s.analyzer.Choose(k, now).Why})
		}
	}
	slices.SortFunc(report.Connections, func(a, b Connection) int {
		if c := a.Local.Compare(b.Local); c != 0 {
			return c
		}
		return a.Remote.Compare(b.Remote)
	})
	return report, nil
}

func (s *service) describe(c *inet.Connection, now time.Time, st Status) Connection {
	k := socket.Key{Local: c.Local, Remote: c.Remote}
	idle, known := s.analyzer.Idle(k, now)
	for _, way := range []struct {
		segments uint32
		since    time.Duration
	}{{c.SegmentsIn, c.SinceIn}, {c.SegmentsOut, c.SinceOut}} { // more recent than the last look
		if way.segments > 0 && (!known || way.since < idle) {
			idle, known = way.since, true
		}
	}
	shown := Connection{c.Local, c.Remote, ConnectionAwake, idle, ""}
	if st.State != host.Asleep {
		shown.Why = s.analyzer.Describe(k, now)
		return shown
	}
	choice := s.analyzer.Choose(k, now)
	shown.State, shown.Why = ConnectionParked, choice.Why
	if choice.Suspend {
		shown.Why = choice.Why + ", to be suspended"
		if st.ConnectionsParkedWhy != "" {
			shown.Why = choice.Why + ", but: " + st.ConnectionsParkedWhy
		}
	}
	return shown
}
