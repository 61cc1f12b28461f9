package daemon

import (
	"errors"
	"slices"
	"testing"
	"time"

	"torpor/host"
)

// startSpares is a service that starts from its checkpoint and has two spares.
func startSpares(t *testing.T) *readyWorld {
	t.Helper()
	r := startReady(t, func(_ *world, s *host.ServiceSpec) { s.Torpor.Spares = 2 })
	r.settle()
	r.awaitSpares("p-web-2", "p-web-3")
	return r
}

// awaitSpares waits until these are the service's spares, all made.
func (r *readyWorld) awaitSpares(want ...host.ContainerID) {
	r.Helper()
	var got []host.ContainerID
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		got = nil
		for _, u := range r.daemon.spares("p", "web") {
			u.mu.Lock()
			if u.running != 0 {
				got = append(got, u.id)
			}
			u.mu.Unlock()
		}
		if slices.Equal(got, want) {
			return
		}
	}
	r.Fatalf("spares are %v, want %v", got, want)
}

// TestSparesAreFilled makes instances of spares first, and new spares then.
func TestSparesAreFilled(t *testing.T) {
	r := startSpares(t)
	if got := r.daemon.instances("p", "web"); len(got) != 1 {
		t.Errorf("spares count as instances: %d", len(got))
	}
	if err := r.daemon.clone(t.Context(), CloneRequest{ID: readyID, Add: 3}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if got := r.order("fill"); len(got) != 2 || !slices.Contains(got, "p-web-2") || !slices.Contains(got, "p-web-3") {
		t.Errorf("filled were %v", got)
	}
	if got := r.order("restore"); !slices.Contains(got, "p-web-4") {
		t.Errorf("restored were %v", got)
	}
	for _, id := range []host.ContainerID{"p-web-2", "p-web-3", "p-web-4"} {
		wantState(t, r.daemon, id, host.Awake)
	}
	r.awaitSpares("p-web-5", "p-web-6")
}

// TestSpareThatCanNotBeFilled is started like any other instance.
func TestSpareThatCanNotBeFilled(t *testing.T) {
	r := startSpares(t)
	spare := r.daemon.unit("p-web-2")
	r.mu.Lock()
	r.ready.spoiled = &unusable{reason: "the configuration was changed"}
	r.mu.Unlock()
	if err := spare.try(func() error { return spare.wantStart(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	wantState(t, r.daemon, "p-web-2", host.Awake)
	if r.made("p-web-2") == 0 || !r.saw(host.EventCold, "the configuration was changed") {
		t.Error("it was not started cold")
	}
}

// TestSparesGo with their service, with a changed one, and with the daemon.
func TestSparesGo(t *testing.T) {
	r := startSpares(t)
	changed := testProject(host.ServiceSpec{Name: "web", Command: []string{"other"}, Torpor: host.TorporSpec{Checkpoint: host.CheckpointReady}})
	mustUp(t, r.daemon, changed)
	if got := r.daemon.spares("p", "web"); len(got) > 0 {
		t.Errorf("a changed service still has %d spares", len(got))
	}
	r = startSpares(t)
	again := testDaemon(t, r.world, r.daemon.config.StateDir)
	t.Cleanup(again.end)
	if err := again.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantState(t, again, "p-web-2", host.Created)
	if err := again.down(t.Context(), DownRequest{Project: "p"}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if got := r.running(); len(got) > 0 {
		t.Errorf("down left %v", got)
	}
	if err := again.down(t.Context(), DownRequest{Project: "p"}, func(Progress) {}); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("down again: %v", err)
	}
}
