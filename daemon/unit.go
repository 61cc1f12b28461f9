package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"torpor/host"
	"torpor/keeper"
)

// unit is one container in the daemon's care. Its record and container belong
// to its goroutine; the fields below mu may be read by anybody.
type unit struct {
	daemon  *Daemon
	id      host.ContainerID
	project host.ProjectName
	service host.ServiceName
	number  int // of the instance

	work   chan func()
	ended  chan struct{}
	record *Record
	init   int // host pid of the container's init; 0: there is no container
	timer  *time.Timer
	health *healthChecker
	ready  *readier

	// probing is held while a healthcheck runs or a command puts the service
	// to sleep: each would be in the other's way.
	probing sync.Mutex

	mu      sync.Mutex
	state   host.State
	reason  string
	healthy health
	since   time.Time
	view    Record        // as last saved
	running int           // init, likewise
	changed chan struct{} // closed and replaced at every change
}

// newUnit takes a container into care. The caller ends it with stopCare.
func newUnit(d *Daemon, r *Record) *unit {
	u := &unit{daemon: d, id: r.ID, project: r.Spec.Project, service: r.Spec.Name, number: r.Number, record: r, view: *r, healthy: r.Health,
		work: make(chan func()), ended: make(chan struct{}), state: host.Created, since: time.Now(), changed: make(chan struct{})}
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

// do runs f on the unit's goroutine and waits for it. False: the unit is not
// in care any more.
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
		u.endHealth()
		u.endReady()
		u.cancelRestart()
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
			u.daemon.log.Error("change state", "container", u.id, "error", err)
			next = to
		}
		u.state, u.since = next, time.Now()
	}
	u.reason, u.running = reason, u.init
	u.wakeWaitersLocked()
}

// found sets a state that was found, not reached.
func (u *unit) found(state host.State, reason string, since time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state, u.reason, u.since, u.running = state, reason, since, u.init
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

// seen is the record as last saved; it is not to be changed.
func (u *unit) seen() Record {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.view
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
		case <-u.ended:
			return fmt.Errorf("wait for %s: it was removed", u.id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (u *unit) event(what host.EventType, reason string, attrs map[string]string) {
	u.daemon.events.send(host.Event{Time: time.Now(), Type: what, Project: u.project, Service: u.service, Container: u.id, Reason: reason, Attrs: attrs})
}

func (u *unit) dir() string { return u.daemon.config.serviceDir(u.id) }

// save writes the record and shows it to others.
func (u *unit) save() error {
	u.mu.Lock()
	u.record.Health = u.healthy
	u.view, u.running = *u.record, u.init
	u.mu.Unlock()
	return u.record.save(u.dir())
}

// complain logs what nobody waits for.
func (u *unit) complain(doing string, err error) {
	if err != nil {
		u.daemon.log.Error(doing, "container", u.id, "error", err)
	}
}

// keeperStatus asks the keeper about this container.
func (u *unit) keeperStatus(ctx context.Context) (keeper.Status, error) {
	all, err := u.daemon.keeperStatus(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	for _, s := range all {
		if s.ID == u.id {
			return s, nil
		}
	}
	return keeper.Status{}, fmt.Errorf("ask keeper about %s: %w", u.id, host.ErrNotFound)
}
