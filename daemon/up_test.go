package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torpor/host"
)

// logTo is a log whose messages are handed to f.
func logTo(f func(string)) *slog.Logger { return slog.New(&messages{f: f}) }

type messages struct {
	slog.Handler
	f func(string)
}

func (*messages) Enabled(context.Context, slog.Level) bool { return true }

func (m *messages) Handle(_ context.Context, r slog.Record) error {
	m.f(r.Message)
	return nil
}

func dependsOn(name string, condition host.DependencyCondition) []host.Dependency {
	return []host.Dependency{{Service: host.ServiceName(name), Condition: condition, Required: true}}
}

func TestStartOrder(t *testing.T) {
	order, err := startOrder([]host.ServiceSpec{
		{Name: "web", DependsOn: dependsOn("app", host.DependsStarted)},
		{Name: "app", DependsOn: dependsOn("db", host.DependsStarted)},
		{Name: "db"},
	})
	var names []host.ServiceName
	for _, s := range order {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]host.ServiceName{"db", "app", "web"}, names); diff != "" || err != nil {
		t.Errorf("%v, order (-want +got):\n%s", err, diff)
	}
	if _, err := startOrder([]host.ServiceSpec{{Name: "a", DependsOn: dependsOn("b", "")}, {Name: "b", DependsOn: dependsOn("a", "")}}); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("cycle: %v", err)
	}
}

func TestConditionsOfDependsOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		begun := time.Now()
		at := map[host.ContainerID]time.Duration{}
		w.make = func(w *world, id host.ContainerID, _ host.ServiceSpec) { at[id] = time.Since(begun) }
		w.check = func(host.ContainerID) error {
			if time.Since(begun) < 5*time.Second {
				return errors.New("not yet")
			}
			return nil
		}
		go func() {
			time.Sleep(8 * time.Second)
			w.exit("p-setup-1", 0)
			d.keeperEvent(host.Event{Type: host.EventExit, Container: "p-setup-1"})
		}()
		mustUp(t, d, testProject(
			host.ServiceSpec{Name: "db", Healthcheck: &host.Healthcheck{Test: []string{"CMD", "true"}, StartInterval: time.Second}},
			host.ServiceSpec{Name: "setup"},
			host.ServiceSpec{Name: "app", DependsOn: dependsOn("db", host.DependsHealthy)},
			host.ServiceSpec{Name: "web", DependsOn: dependsOn("setup", host.DependsCompleted)},
			host.ServiceSpec{Name: "log", DependsOn: dependsOn("setup", host.DependsStarted)},
		))
		if at["p-db-1"] != 0 || at["p-setup-1"] != 0 || at["p-log-1"] != 0 {
			t.Errorf("what depends on nothing slow started at %v", at)
		}
		if at["p-app-1"] < 5*time.Second || at["p-app-1"] > 7*time.Second {
			t.Errorf("app started at %s", at["p-app-1"])
		}
		if at["p-web-1"] < 8*time.Second {
			t.Errorf("web started at %s", at["p-web-1"])
		}
	})
}

func TestFailedDependencyStopsOnlyItsDependents(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		w.broken["p-db-1"] = errors.New("no")
		err := d.up(t.Context(), UpRequest{Project: testProject(
			host.ServiceSpec{Name: "db"}, host.ServiceSpec{Name: "web", DependsOn: dependsOn("db", host.DependsStarted)})}, func(Progress) {})
		if !errors.Is(err, w.broken["p-db-1"]) || !strings.Contains(err.Error(), "db") {
			t.Errorf("error is %v", err)
		}
		wantState(t, d, web, host.Created)
		optional := testProject(host.ServiceSpec{Name: "db"}, host.ServiceSpec{Name: "web", DependsOn: []host.Dependency{{Service: "gone"}}})
		delete(w.broken, "p-db-1")
		mustUp(t, d, optional)
		wantState(t, d, web, host.Awake)
	})
}

func TestDownGoesBackwards(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		mustUp(t, d, testProject(
			host.ServiceSpec{Name: "db", Mounts: []host.MountSpec{{Kind: host.MountVolume, Source: "data", Target: "/data"}}},
			host.ServiceSpec{Name: "app", DependsOn: dependsOn("db", host.DependsStarted), Mounts: []host.MountSpec{{Kind: host.MountVolume, Source: "data", Target: "/data"}}},
			host.ServiceSpec{Name: "web", DependsOn: dependsOn("app", host.DependsStarted)},
		))
		if err := d.down(t.Context(), DownRequest{Project: "p", Volumes: true}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"p-web-1", "p-app-1", "p-db-1"}, w.order("signal")); diff != "" {
			t.Errorf("stopped (-want +got):\n%s", diff)
		}
		if len(w.networks) > 0 || len(w.volumes) > 0 || len(d.all()) > 0 {
			t.Errorf("left: %v %v %v", w.networks, w.volumes, d.all())
		}
		if err := d.down(t.Context(), DownRequest{Project: "p"}, func(Progress) {}); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("second down: %v", err)
		}
	})
}

func TestExternalVolumesStay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		p := webWith(func(s *host.ServiceSpec) {
			s.Mounts = []host.MountSpec{{Kind: host.MountVolume, Source: "data", Target: "/data"}}
		})
		p.Volumes["data"] = host.VolumeSpec{Name: "shared", External: true}
		mustUp(t, d, p)
		if err := d.down(t.Context(), DownRequest{Project: "p", Volumes: true}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		if !w.volumes["shared"] {
			t.Error("an external volume was removed")
		}
	})
}

func TestUnchangedStaysChangedIsMadeAnew(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		mustUp(t, d, webWith(func(*host.ServiceSpec) {}))
		w.sleep(web)
		mustUp(t, d, webWith(func(s *host.ServiceSpec) { s.Profiles = []string{"x"} }))
		if f := w.fake(web); w.made(web) != 1 || f.state != host.Asleep {
			t.Errorf("unchanged: made %d times, %s", w.made(web), f.state)
		}
		for i, change := range []func(*host.ServiceSpec){
			func(s *host.ServiceSpec) { s.Command = []string{"other"} },
			func(s *host.ServiceSpec) { s.Environment = map[string]string{"A": "b"} },
			func(*host.ServiceSpec) {},
		} {
			mustUp(t, d, webWith(change))
			if got := w.made(web); got != i+2 {
				t.Errorf("change %d: made %d times", i, got)
			}
		}
	})
}

func TestOrphans(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		mustUp(t, d, testProject(host.ServiceSpec{Name: "web"}, host.ServiceSpec{Name: "old"}))
		request := UpRequest{Project: webWith(func(*host.ServiceSpec) {}), Known: []host.ServiceName{"web"}}
		var told []string
		tell := func(p Progress) { told = append(told, p.Subject+" "+p.What) }
		if err := d.up(t.Context(), request, tell); err != nil {
			t.Fatal(err)
		}
		if d.unit("p-old-1") == nil || !slices.Contains(told, "p-old-1 is not in the file any more") {
			t.Errorf("told %q", told)
		}
		request.RemoveOrphans = true
		if err := d.up(t.Context(), request, tell); err != nil {
			t.Fatal(err)
		}
		if d.unit("p-old-1") != nil {
			t.Error("orphan is still there")
		}
	})
}

func TestRemoveRefusesWhatRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		mustUp(t, d, webWith(func(*host.ServiceSpec) {}))
		request := RemoveRequest{BatchRequest: BatchRequest{IDs: []host.ContainerID{web}}}
		if err := d.removeAll(t.Context(), request, func(Progress) {}); !errors.Is(err, host.ErrRefused) {
			t.Errorf("remove: %v", err)
		}
		request.Force = true
		if err := d.removeAll(t.Context(), request, func(Progress) {}); err != nil || d.unit(web) != nil {
			t.Errorf("forced remove: %v", err)
		}
	})
}

func TestRestartTakesFollowersAlong(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		follows := dependsOn("db", host.DependsStarted)
		follows[0].Restart = true
		mustUp(t, d, testProject(host.ServiceSpec{Name: "db"}, host.ServiceSpec{Name: "web", DependsOn: follows}, host.ServiceSpec{Name: "other", DependsOn: dependsOn("db", "")}))
		if err := d.restartAll(t.Context(), BatchRequest{IDs: []host.ContainerID{"p-db-1"}}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		if db, web, other := w.made("p-db-1"), w.made(web), w.made("p-other-1"); db != 2 || web != 2 || other != 1 {
			t.Errorf("made db %d, web %d, other %d times", db, web, other)
		}
	})
}

func TestOneContainerName(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		mustUp(t, d, webWith(func(s *host.ServiceSpec) { s.ContainerName = "front" }))
		p := testProject(host.ServiceSpec{Name: "web", ContainerName: "front"})
		p.Name, p.Services[0].Project = "q", "q"
		if err := d.up(t.Context(), UpRequest{Project: p}, func(Progress) {}); !errors.Is(err, host.ErrExists) {
			t.Errorf("second container of a name: %v", err)
		}
	})
}
