package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"torpor/container/network"
	"torpor/host"
)

// unit is one container in the daemon's care. Its record and container belong
// to its goroutine; the fields below mu may be read by anybody.
type unit struct {
	daemon  *Daemon
	id      host.ContainerID
	project host.ProjectName
	service host.ServiceName

	work   chan func()
	ended  chan struct{}
	record *Record
	init   int // host pid of the container's init; 0: there is no container
	timer  *time.Timer
	health *healthChecker

	mu      sync.Mutex
	state   host.State
	reason  string
	healthy health
	since   time.Time
	changed chan struct{} // closed and replaced at every change
	places  []place       // what peers need to know
}

// place is where and by which names a unit is found on one network.
type place struct {
	attachment network.Attachment
	names      []string
}

// settle tells peers where the unit is, from its record.
func (u *unit) settle() {
	var places []place
	for _, a := range u.record.Attachments {
		places = append(places, place{a, u.names(a.Network)})
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.places = places
}

func (u *unit) whereabouts() []place {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.places
}

func newUnit(d *Daemon, r *Record) *unit {
	u := &unit{daemon: d, id: r.ID, project: r.Spec.Project, service: r.Spec.Name, record: r,
		work: make(chan func()), ended: make(chan struct{}), state: host.Created, since: time.Now(), changed: make(chan struct{})}
	u.settle()
	go u.run()
	return u
}

// run executes the unit's work, one piece at a time.
func (u *unit) run() {
	for {
		select {
		case f := <-u.work:
			f()
		case <-u.ended:
			return
		}
	}
}

// do runs f on the unit's goroutine and waits for it. It reports false when
// the unit is not cared for any more.
func (u *unit) do(f func()) bool {
	finished := make(chan struct{})
	select {
	case u.work <- func() { defer close(finished); f() }:
		<-finished
		return true
	case <-u.ended:
		return false
	}
}

// try is do for work that can fail.
func (u *unit) try(f func() error) error {
	var err error
	if !u.do(func() { err = f() }) {
		return fmt.Errorf("reach %s: %w", u.id, host.ErrNotFound)
	}
	return err
}

// stopCare ends the goroutine; the container is left alone.
func (u *unit) stopCare() {
	u.do(func() {
		u.health.stop()
		if u.timer != nil {
			u.timer.Stop()
		}
		close(u.ended)
	})
}

// become changes the state; every change is one of host's table.
func (u *unit) become(to host.State, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state != to {
		next, err := u.state.Next(to)
		if err != nil {
			u.daemon.log.Error("state", "container", u.id, "error", err)
			next = to
		}
		u.state, u.since = next, time.Now()
	}
	u.reason = reason
	u.wakeWaitersLocked()
}

// found sets a state that was found, not reached.
func (u *unit) found(state host.State, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state, u.reason, u.since = state, reason, time.Now()
	u.wakeWaitersLocked()
}

func (u *unit) wakeWaitersLocked() {
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *unit) snapshot() (host.State, string, health) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state, u.reason, u.healthy
}

// await waits until ok says so of the unit.
func (u *unit) await(ctx context.Context, ok func(host.State, health) (bool, error)) error {
	for {
		u.mu.Lock()
		state, healthy, changed := u.state, u.healthy, u.changed
		u.mu.Unlock()
		if done, err := ok(state, healthy); done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (u *unit) event(what host.EventType, reason string, attrs map[string]string) {
	u.daemon.events.send(host.Event{Time: time.Now(), Type: what, Project: u.project, Service: u.service, Container: u.id, Reason: reason, Attrs: attrs})
}

// recover finds the container as an earlier daemon left it.
func (u *unit) recover(ctx context.Context) {
	err := u.try(func() error { return u.find(ctx) })
	if err != nil {
		u.daemon.log.Error("recover", "container", u.id, "error", err)
	}
}

func (u *unit) find(ctx context.Context) error {
	state, err := u.daemon.runtime.State(ctx, u.id)
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return err
	}
	if err == nil && state.Status == "running" && u.record.WantRunning {
		u.init = state.PID
		u.found(host.Awake, "")
		if err := u.adopt(ctx); err != nil {
			return err
		}
		return u.afterStart(ctx)
	}
	// Half made, or ended with the machine.
	if err := u.clear(ctx); err != nil {
		return err
	}
	u.found(host.Exited, "")
	if u.record.WantRunning && u.record.Spec.Restart.Mode != host.RestartNo || err == nil && state.Status == "created" {
		return u.start(ctx)
	}
	return nil
}

// exited is told by the keeper that the application ended.
func (u *unit) exited(e host.Event) {
	u.do(func() {
		if u.init == 0 {
			return // stopped by us meanwhile
		}
		code := 1
		fmt.Sscan(e.Attrs["exit_code"], &code)
		u.health.stop()
		if err := u.clear(context.Background()); err != nil {
			u.daemon.log.Error("clear", "container", u.id, "error", err)
		}
		u.record.ExitCode = code
		if time.Since(u.since) > restartReset {
			u.record.Restarts = 0
		}
		u.become(host.Exited, e.Reason)
		if e.Attrs["cold"] != "" {
			u.startAgain(0)
			return
		}
		u.restartByPolicy(code)
	})
}

// Back-off of restarts: doubled at each, reset by a long enough life.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = time.Minute
	restartReset = 10 * time.Second
)

// restartByPolicy starts the service again if its policy says so.
func (u *unit) restartByPolicy(code int) {
	policy := u.record.Spec.Restart
	again := false
	switch policy.Mode {
	case host.RestartAlways, host.RestartUnlessStopped:
		again = true
	case host.RestartOnFailure:
		again = code != 0
	}
	if !again || !u.record.WantRunning || policy.MaxRetries > 0 && u.record.Restarts >= policy.MaxRetries {
		u.record.WantRunning = u.record.WantRunning && again
		if err := u.save(); err != nil {
			u.daemon.log.Error("save", "container", u.id, "error", err)
		}
		return
	}
	delay := policy.Delay
	if delay == 0 {
		delay = min(restartFirst<<min(u.record.Restarts, 16), restartMost)
	}
	u.record.Restarts++
	u.startAgain(delay)
}

// startAgain starts the service after a delay, unless it was stopped then.
func (u *unit) startAgain(delay time.Duration) {
	u.event(host.EventRestart, fmt.Sprintf("in %s", delay), nil)
	u.timer = time.AfterFunc(delay, func() {
		u.do(func() {
			if !u.record.WantRunning || u.init != 0 {
				return
			}
			if err := u.start(context.Background()); err != nil {
				u.daemon.log.Error("restart", "container", u.id, "error", err)
				u.restartByPolicy(1)
			}
		})
	})
}

func (u *unit) dir() string { return u.daemon.config.serviceDir(u.id) }

func (u *unit) save() error { return u.record.save(u.dir()) }
