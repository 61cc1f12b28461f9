package daemon

import (
	"errors"
	"slices"
	"testing"

	"torpor/host"
)

// running lists the containers of the test project that run.
func (w *world) running() []host.ContainerID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []host.ContainerID
	for id, f := range w.containers {
		if !f.exited {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// TestScale changes the number of instances: those that stay are not touched.
func TestScale(t *testing.T) {
	w := newWorld()
	d := testDaemon(t, w, t.TempDir())
	t.Cleanup(d.end)
	for _, test := range []struct {
		scale int
		want  []host.ContainerID
	}{
		{2, []host.ContainerID{"p-web-1", "p-web-2"}},
		{3, []host.ContainerID{"p-web-1", "p-web-2", "p-web-3"}},
		{1, []host.ContainerID{"p-web-1"}},
		{0, nil},
		{2, []host.ContainerID{"p-web-1", "p-web-2"}},
	} {
		p := testProject(host.ServiceSpec{Name: "web"})
		p.Services[0].Scale = test.scale
		mustUp(t, d, p)
		if got := w.running(); !slices.Equal(got, test.want) {
			t.Fatalf("with scale %d there are %v, want %v", test.scale, got, test.want)
		}
	}
	if n := w.made("p-web-1"); n != 2 {
		t.Errorf("the first instance was made %d times, want once and again after 0", n)
	}
	if names := []string{d.unit("p-web-1").record.hostname(), d.unit("p-web-2").record.hostname()}; names[0] == names[1] {
		t.Errorf("hostnames %v", names)
	}
}

// TestScaleRefuses what only one instance can have, before anything is made.
func TestScaleRefuses(t *testing.T) {
	w := newWorld()
	d := testDaemon(t, w, t.TempDir())
	t.Cleanup(d.end)
	named := testProject(host.ServiceSpec{Name: "web", Scale: 2, ContainerName: "only"})
	fixed := testProject(host.ServiceSpec{Name: "web", Scale: 2})
	fixed.Services[0].Networks[0].IPv4 = "10.1.2.3"
	for _, p := range []host.ProjectSpec{named, fixed} {
		if err := d.up(t.Context(), UpRequest{Project: p}, func(Progress) {}); !errors.Is(err, host.ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
	if got := w.running(); len(got) > 0 {
		t.Errorf("there are %v", got)
	}
}

// TestDependsOnAll starts a service behind all instances of another.
func TestDependsOnAll(t *testing.T) {
	w := newWorld()
	d := testDaemon(t, w, t.TempDir())
	t.Cleanup(d.end)
	mustUp(t, d, testProject(host.ServiceSpec{Name: "web", Scale: 2, DependsOn: dependsOn("db", host.DependsStarted)}, host.ServiceSpec{Name: "db", Scale: 2}))
	order := w.order("make")
	for _, web := range []string{"p-web-1", "p-web-2"} {
		for _, db := range []string{"p-db-1", "p-db-2"} {
			if slices.Index(order, web) < slices.Index(order, db) {
				t.Errorf("order is %v", order)
			}
		}
	}
}

// TestClone makes instances that start from the checkpoint.
func TestClone(t *testing.T) {
	r := startReady(t, nil)
	r.settle()
	clone := func(id host.ContainerID, n int) error {
		return r.daemon.clone(t.Context(), CloneRequest{ID: id, Add: n}, func(Progress) {})
	}
	if err := clone(readyID, 3); err != nil {
		t.Fatal(err)
	}
	if got := r.running(); !slices.Equal(got, []host.ContainerID{"p-web-1", "p-web-2", "p-web-3", "p-web-4"}) {
		t.Errorf("there are %v", got)
	}
	if got := r.order("restore"); len(got) != 3 {
		t.Errorf("restored were %v", got)
	}
	if err := clone("p-web-3", 1); err != nil || r.fake("p-web-5").pid == 0 {
		t.Errorf("clone of a clone: %v, %v", err, r.running())
	}
	if err := clone(readyID, 0); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("no clones: %v", err)
	}
	r.mu.Lock()
	r.ready.spoiled = &unusable{reason: "files were changed in /app"}
	r.mu.Unlock()
	if err := clone(readyID, 1); err == nil || r.fake("p-web-6").pid != 0 {
		t.Errorf("cloned from a checkpoint that does not fit: %v", err)
	}
}
