package keeper

import (
	"fmt"
	"time"

	"torpor/host"
	"torpor/kernel/inet"
	"torpor/kernel/proc"
)

// busyShare is the share of one CPU above which a service counts as busy. An
// idle JVM needs about one per cent for its own housekeeping.
const busyShare = 0.03

// ticksPerSecond is USER_HZ of Linux on amd64.
const ticksPerSecond = 100

// idleness remembers when the service last did something.
type idleness struct {
	lastTime    time.Time
	lastTicks   uint64
	lastArrived uint64
	activeAt    time.Time
	why         string    // what activity that was
	ownAt       time.Time // last ping of its own, which is no activity
	ahead       bool      // it was woken for one

	switches uint64    // of its threads, when last looked at
	stillAt  time.Time // since when they are the same; zero if unknown
}

// reset begins a new quiet time.
func (i *idleness) reset() { *i = idleness{activeAt: time.Now(), why: "just woken or started"} }

// resetAhead is reset after a wake ahead of a ping: nobody uses the service.
func (i *idleness) resetAhead() {
	*i = idleness{activeAt: time.Unix(0, 0), ownAt: time.Now(), ahead: true}
}

func (i *idleness) active(now time.Time, why string) { i.activeAt, i.why, i.ahead = now, why, false }

// tick looks at idleness and puts the service to sleep when its quiet time is
// over.
func (s *service) tick() {
	st := s.snapshot()
	if st.State == host.Asleep {
		if !s.initLives() {
			s.cold(errContainerGone)
			return
		}
		s.rearmLate(time.Now())
		s.suspendLate(time.Now())
		return
	}
	if st.State != host.Awake || st.MainPID == 0 || s.target.SleepAfter == 0 || s.target.NoSleepReason != "" {
		return
	}
	now := time.Now()
	if s.probe.running(now) {
		return
	}
	if err := s.observe(now); err != nil {
		s.set(func(st *Status) { st.Reason = err.Error() })
		return
	}
	quiet := now.Sub(s.idle.activeAt)
	if quiet < s.target.SleepAfter {
		s.set(func(st *Status) { st.Reason = s.idle.why })
		return
	}
	if why := s.stay(now); why != "" {
		s.set(func(st *Status) { st.Reason = why })
		return
	}
	if now.Before(s.retryAt) {
		return
	}
	_, _ = s.sleep() // a refusal is in the status and in an event
}

// lookStill notes since when no thread of the service has run. It is worth a look
// for one that has pings of its own: they come out of waits with a timeout.
func (s *service) lookStill(now time.Time, pids []int) {
	i := &s.idle
	if !s.analyzer.HasPings() {
		i.stillAt = time.Time{}
		return
	}
	switches, err := proc.ContextSwitches(pids)
	if err != nil || i.stillAt.IsZero() || switches != i.switches {
		i.switches, i.stillAt = switches, now
	}
}

// waited is how long no thread has run.
func (i *idleness) waited(now time.Time) time.Duration {
	if i.stillAt.IsZero() {
		return 0
	}
	return now.Sub(i.stillAt)
}

// stay says why a service that nobody uses is awake all the same.
func (s *service) stay(now time.Time) string {
	if now.Sub(s.idle.ownAt) < s.analyzer.Quiet() {
		return "it has a ping of its own to send"
	}
	return s.analyzer.Stay(now)
}

// observe notes activity since the last look.
func (s *service) observe(now time.Time) error {
	i := &s.idle
	pids, err := s.list()()
	if err != nil {
		i.active(now, err.Error())
		return nil
	}
	var ticks uint64
	for _, pid := range pids {
		if stat, err := proc.ReadStat(pid); err == nil {
			ticks += stat.UserTicks + stat.SystemTicks
		}
	}
	arrived, err := inet.Arrived(s.target.InitPID)
	if err != nil {
		return err
	}
	act, err := s.look(now)
	if err != nil {
		return err
	}
	if act.Own {
		i.ownAt = now
	}
	if act.Used != "" {
		i.active(now, act.Used)
	}
	s.lookStill(now, pids)
	if i.lastTime.IsZero() {
		i.lastTime, i.lastTicks, i.lastArrived = now, ticks, arrived
		if i.activeAt.IsZero() {
			i.active(now, "just found")
		}
		return nil
	}
	elapsed := now.Sub(i.lastTime)
	share := float64(ticks-min(ticks, i.lastTicks)) / ticksPerSecond / elapsed.Seconds()
	switch {
	case arrived != i.lastArrived:
		i.active(now, "a packet or connection arrived")
	case elapsed >= minShareWindow && share > busyShare && i.ahead:
		i.ownAt = now // a wake and its pings take time, too
	case elapsed >= minShareWindow && share > busyShare:
		i.active(now, fmt.Sprintf("it uses %.0f %% of a CPU", share*100))
	}
	if elapsed >= minShareWindow || arrived != i.lastArrived {
		i.lastTime, i.lastTicks, i.lastArrived = now, ticks, arrived
	}
	return nil
}

// minShareWindow is the shortest time over which ticks of 10 ms say anything
// about a share of a few per cent.
const minShareWindow = time.Second
