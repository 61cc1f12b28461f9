package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"torpor/host"
)

// TestFind starts a daemon on what an earlier one left.
func TestFind(t *testing.T) {
	for _, test := range []struct {
		name    string
		record  Record
		there   *fake // the container
		want    host.State
		made    int
		code    int
		running bool
	}{
		{name: "awake", record: Record{WantRunning: true}, there: &fake{init: 2, pid: 3, state: host.Awake}, want: host.Awake, running: true},
		{name: "asleep", record: Record{WantRunning: true}, there: &fake{init: 2, state: host.Asleep}, want: host.Awake, running: true},
		{name: "ended meanwhile", record: Record{WantRunning: true}, there: &fake{init: 2, state: host.Exited, exited: true, code: 5}, want: host.Exited, code: 5},
		{name: "ended meanwhile, restarts", record: Record{WantRunning: true, Spec: host.ServiceSpec{Restart: host.RestartPolicy{Mode: host.RestartAlways}}},
			there: &fake{init: 2, state: host.Exited, exited: true, code: 5}, want: host.Awake, made: 1, running: true},
		{name: "ended unseen", record: Record{WantRunning: true}, there: &fake{init: 2, state: host.Awake}, want: host.Exited, code: exitUnknown},
		{name: "was being stopped", there: &fake{init: 2, pid: 3, state: host.Awake}, want: host.Exited},
		{name: "was being started", record: Record{WantRunning: true, Starting: true}, want: host.Awake, made: 1, running: true},
		{name: "was started", record: Record{WantRunning: true, Starting: true}, there: &fake{init: 2, pid: 3, state: host.Awake}, want: host.Awake, running: true},
		{name: "after a restart of the machine", record: Record{WantRunning: true, Spec: host.ServiceSpec{Restart: host.RestartPolicy{Mode: host.RestartUnlessStopped}}}, want: host.Awake, made: 1, running: true},
		{name: "after a restart of the machine, no policy", record: Record{WantRunning: true}, want: host.Exited, code: exitUnknown},
		{name: "stopped", record: Record{Spec: host.ServiceSpec{Restart: host.RestartPolicy{Mode: host.RestartAlways}}}, want: host.Exited},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world, d *Daemon) {
				r := test.record
				r.Version, r.ID, r.Started = recordVersion, web, time.Now().Add(-time.Hour)
				r.Spec.Project, r.Spec.Name = "p", "web"
				if err := r.save(d.config.serviceDir(web)); err != nil {
					t.Fatal(err)
				}
				if test.there != nil {
					w.containers[web] = test.there
				}
				if err := d.load(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				wantState(t, d, web, test.want)
				if got := w.made(web); got != test.made {
					t.Errorf("made %d times, want %d", got, test.made)
				}
				if got := d.unit(web).seen().ExitCode; got != test.code {
					t.Errorf("exit code is %d, want %d", got, test.code)
				}
				if got := len(w.containers) > 0; got != test.running {
					t.Errorf("container is there: %v", got)
				}
			})
		})
	}
}

// TestKilledAtEveryStep takes a copy of the machine at each call that up and
// down make, and starts another daemon on it, as if the first had been killed
// there. It must be able to do all again, and leave nothing.
func TestKilledAtEveryStep(t *testing.T) {
	project := testProject(
		host.ServiceSpec{Name: "db", Mounts: []host.MountSpec{{Kind: host.MountVolume, Source: "data", Target: "/data"}}},
		host.ServiceSpec{Name: "web", DependsOn: dependsOn("db", host.DependsStarted), Restart: host.RestartPolicy{Mode: host.RestartAlways}},
	)
	for step := 0; ; step++ {
		dir := t.TempDir()
		ended := false
		synctest.Test(t, func(t *testing.T) {
			after, call := killedAt(t, project, step, dir)
			if after == nil {
				ended = true
				return
			}
			t.Logf("killed at %s", call)
			d := testDaemon(t, after, filepath.Join(dir, "copy"))
			defer d.end()
			if err := d.load(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			mustUp(t, d, project)
			wantState(t, d, web, host.Awake)
			wantState(t, d, "p-db-1", host.Awake)
			if err := d.down(t.Context(), DownRequest{Project: "p", Volumes: true}, func(Progress) {}); err != nil {
				t.Fatal(err)
			}
			if len(after.containers)+len(after.networks)+len(after.volumes) > 0 {
				t.Errorf("left behind: %v %v %v", after.containers, after.networks, after.volumes)
			}
			for _, name := range []string{"services", "removing"} {
				emptyDir(t, filepath.Join(d.config.StateDir, name))
			}
		})
		if ended {
			if step < 8 {
				t.Errorf("only %d steps", step)
			}
			return
		}
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
}

// killedAt runs up and down, and returns the world as it was at one of their
// calls; the state directory is copied to dir/copy. nil: they made fewer calls.
func killedAt(t *testing.T, project host.ProjectSpec, step int, dir string) (after *world, what string) {
	w, n := newWorld(), 0
	d := testDaemon(t, w, filepath.Join(dir, "state"))
	w.onCall = func(call string) {
		if n == step {
			after, what = w.cloneLocked(), fmt.Sprintf("%d: %s", step, call)
			if err := os.CopyFS(filepath.Join(dir, "copy"), os.DirFS(d.config.StateDir)); err != nil {
				t.Error(err)
			}
		}
		n++
	}
	mustUp(t, d, project)
	if err := d.down(t.Context(), DownRequest{Project: "p", Volumes: true}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	d.end()
	return after, what
}

func TestStateOfAnotherVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte("7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := Config{StateDir: dir, RunDir: dir}
	if err := config.openState(); err == nil {
		t.Error("opened")
	} else {
		t.Log(err)
	}
	emptied, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(emptied) != 1 {
		t.Errorf("something was made: %v", emptied)
	}
}
