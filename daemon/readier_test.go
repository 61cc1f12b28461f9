package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"torpor/host"
)

// readyWorld is a daemon with one service that starts from its checkpoint, and
// what it was asked to do to it.
type readyWorld struct {
	*testing.T
	*world
	daemon *Daemon
}

const readyID = host.ContainerID("p-web-1")

func startReady(t *testing.T, change func(*world, *host.ServiceSpec)) *readyWorld {
	t.Helper()
	w := newWorld()
	spec := host.ServiceSpec{Name: "web", Scale: 1, Torpor: host.TorporSpec{Checkpoint: host.CheckpointReady}}
	if change != nil {
		change(w, &spec)
	}
	r := &readyWorld{T: t, world: w, daemon: testDaemon(t, w, t.TempDir())}
	t.Cleanup(r.daemon.end)
	mustUp(t, r.daemon, testProject(spec))
	return r
}

// settle waits for what follows a start, and forgets the calls so far.
func (r *readyWorld) settle() []string {
	r.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		done := false
		r.daemon.unit(readyID).do(func() {
			u := r.daemon.unit(readyID)
			if u.ready == nil {
				done = true
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			done = slices.Contains(r.calls, "open "+string(readyID))
		})
		if done {
			break
		}
		if time.Now().After(deadline) {
			r.Fatal("the gate was not opened")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var calls []string
	for _, call := range r.calls {
		if word, _, _ := strings.Cut(call, " "); slices.Contains([]string{"make", "restore", "checkpoint", "open", "request"}, word) {
			calls = append(calls, call)
		}
	}
	r.calls = nil
	return calls
}

func (r *readyWorld) restart() []string {
	r.Helper()
	err := r.daemon.unit(readyID).try(func() error {
		u := r.daemon.unit(readyID)
		return errors.Join(u.stop(context.Background(), StopOptions{}), u.wantStart(context.Background()))
	})
	if err != nil {
		r.Fatal(err)
	}
	return r.settle()
}

func (r *readyWorld) want(got []string, want ...string) {
	r.Helper()
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "ID", string(readyID))
	}
	if !slices.Equal(got, want) {
		r.Errorf("calls %q, want %q", got, want)
	}
}

// saw reports whether an event of a type, with such a reason, was sent.
func (r *readyWorld) saw(what host.EventType, reason string) bool {
	recent, fresh := r.daemon.events.subscribe()
	defer r.daemon.events.unsubscribe(fresh)
	return slices.ContainsFunc(recent, func(e host.Event) bool { return e.Type == what && strings.Contains(e.Reason, reason) })
}

func TestStartsFromReadyCheckpoint(t *testing.T) {
	r := startReady(t, func(w *world, _ *host.ServiceSpec) { w.ready.waiting = 3 })
	r.want(r.settle(), "restore ID", "make ID", "checkpoint ID", "open ID")
	for range 2 {
		r.want(r.restart(), "restore ID", "make ID")
	}
	if !r.saw(host.EventReady, "") || !r.saw(host.EventCheckpoint, "") || !r.saw(host.EventStart, "from its ready checkpoint") {
		t.Error("an event is missing")
	}
	if r.saw(host.EventCold, "") || r.saw(host.EventRefuse, "") {
		t.Error("there is an event of a failure")
	}
}

func TestHooks(t *testing.T) {
	r := startReady(t, func(_ *world, s *host.ServiceSpec) {
		s.Torpor.BeforeCheckpoint = &host.Hook{Port: 80, Path: "/before", Timeout: time.Second}
		s.Torpor.AfterRestore = &host.Hook{Port: 80, Path: "/after", Timeout: time.Second}
	})
	r.want(r.settle(), "restore ID", "make ID", "request 80/before of ID", "checkpoint ID", "request 80/after of ID", "open ID")
	r.want(r.restart(), "restore ID", "make ID", "request 80/after of ID", "open ID")
}

// TestUnusableCheckpoint starts cold, says why, and makes another.
func TestUnusableCheckpoint(t *testing.T) {
	r := startReady(t, nil)
	r.settle()
	r.mu.Lock()
	r.ready.spoiled = &unusable{"files were changed in /app", true}
	r.mu.Unlock()
	r.want(r.restart(), "restore ID", "make ID", "checkpoint ID", "open ID")
	if !r.saw(host.EventCold, "files were changed in /app") {
		t.Error("no event says why it started cold")
	}
	r.want(r.restart(), "restore ID", "make ID")
}

// TestRefusedCheckpoint opens the gate all the same.
func TestRefusedCheckpoint(t *testing.T) {
	r := startReady(t, func(w *world, _ *host.ServiceSpec) {
		w.ready.refused = &host.Refusal{Reasons: []string{"process 2 (x) has an io_uring"}}
	})
	r.want(r.settle(), "restore ID", "make ID", "checkpoint ID", "open ID")
	if !r.saw(host.EventRefuse, "no ready checkpoint: process 2 (x) has an io_uring") {
		t.Error("no event names what refused")
	}
	wantState(t, r.daemon, readyID, host.Awake)
}

// TestColdByChoice starts cold where that is faster, and measures a restore
// again after some time.
func TestColdByChoice(t *testing.T) {
	r := startReady(t, nil)
	r.settle()
	r.restart()
	r.mu.Lock()
	r.ready.cold = time.Nanosecond
	r.mu.Unlock()
	for range coldChoicesMost {
		r.want(r.restart(), "restore ID", "make ID", "open ID")
	}
	r.mu.Lock()
	r.ready.cold = time.Hour
	r.mu.Unlock()
	r.want(r.restart(), "restore ID", "make ID")
	if r.saw(host.EventCold, "") {
		t.Error("a choice is no failure")
	}
}

// TestStoppedWhileMadeReady does not wait for a service that is never ready.
func TestStoppedWhileMadeReady(t *testing.T) {
	r := startReady(t, func(w *world, _ *host.ServiceSpec) { w.ready.waiting = 1 << 30 })
	if err := r.daemon.unit(readyID).try(func() error { return r.daemon.unit(readyID).stop(t.Context(), StopOptions{}) }); err != nil {
		t.Fatal(err)
	}
	wantState(t, r.daemon, readyID, host.Exited)
}

// TestOutdone stops making checkpoints for a service whose files change in
// every run.
func TestOutdone(t *testing.T) {
	r := startReady(t, nil)
	r.settle()
	spoil := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ready.spoiled = &unusable{"files were changed in /data", true}
	}
	for range outdoneMost - 1 {
		spoil()
		r.want(r.restart(), "restore ID", "make ID", "checkpoint ID", "open ID")
	}
	spoil()
	r.want(r.restart(), "restore ID", "make ID")
	if !r.saw(host.EventRefuse, "no more ready checkpoints") {
		t.Error("no event says so")
	}
	r.want(r.restart(), "make ID")
}
