package daemon

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"torpor/host"
)

// inBubble runs a test in time of its own.
func inBubble(t *testing.T, f func(t *testing.T, w *world, d *Daemon)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := testDaemon(t, w, dir)
		defer d.end()
		f(t, w, d)
	})
}

const web host.ContainerID = "p-web-1"

func webWith(change func(*host.ServiceSpec)) host.ProjectSpec {
	s := host.ServiceSpec{Name: "web"}
	change(&s)
	return testProject(s)
}

func TestRestartBackOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		mustUp(t, d, webWith(func(s *host.ServiceSpec) { s.Restart.Mode = host.RestartAlways }))
		var waits []time.Duration
		for i := range 4 {
			w.exit(web, i)
			d.told(web)
			begun := time.Now()
			for w.made(web) < i+2 {
				time.Sleep(10 * time.Millisecond)
			}
			waits = append(waits, time.Since(begun).Round(100*time.Millisecond))
		}
		want := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond}
		if diff := cmp.Diff(want, waits); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
		time.Sleep(restartReset + time.Second)
		w.exit(web, 1)
		d.told(web)
		time.Sleep(150 * time.Millisecond)
		if got := w.made(web); got != 6 {
			t.Errorf("after a long life: made %d times, want 6", got)
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy host.RestartPolicy
		code   int
		want   int // how often it is made when it always ends with code
	}{
		{"no", host.RestartPolicy{Mode: host.RestartNo}, 1, 1},
		{"none said", host.RestartPolicy{}, 1, 1},
		{"on-failure, success", host.RestartPolicy{Mode: host.RestartOnFailure}, 0, 1},
		{"on-failure, twice", host.RestartPolicy{Mode: host.RestartOnFailure, MaxRetries: 2}, 1, 3},
		{"unless-stopped, with a delay", host.RestartPolicy{Mode: host.RestartUnlessStopped, Delay: 20 * time.Second}, 0, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world, d *Daemon) {
				w.make = func(w *world, id host.ContainerID, _ host.ServiceSpec) { w.exitLocked(id, test.code) }
				mustUp(t, d, webWith(func(s *host.ServiceSpec) { s.Restart = test.policy }))
				for range 50 {
					d.told(web)
					time.Sleep(time.Second)
				}
				if got := w.made(web); got != test.want {
					t.Errorf("made %d times, want %d", got, test.want)
				}
				if got := d.unit(web).seen().ExitCode; got != test.code {
					t.Errorf("exit code is %d, want %d", got, test.code)
				}
			})
		})
	}
}

// TestLateEventsEndNothing sends an event about an exit that was dealt with:
// the container that runs now is not meant.
func TestLateEventsEndNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		mustUp(t, d, webWith(func(s *host.ServiceSpec) { s.Restart.Mode = host.RestartAlways }))
		w.exit(web, 1)
		event := host.Event{Type: host.EventExit, Container: web}
		d.keeperEvent(event)
		d.keeperEvent(event)
		time.Sleep(time.Second)
		d.keeperEvent(event)
		time.Sleep(time.Second)
		if got := w.made(web); got != 2 {
			t.Errorf("made %d times, want 2", got)
		}
		wantState(t, d, web, host.Awake)
	})
}

func TestStop(t *testing.T) {
	zero := new(time.Duration)
	for _, test := range []struct {
		name         string
		asleep, deaf bool
		options      StopOptions
		code         int
		takes        time.Duration
		woken        bool
		signals      int
	}{
		{name: "awake", signals: 1},
		{name: "asleep", asleep: true, woken: true, signals: 1},
		{name: "deaf", deaf: true, code: exitKilled, takes: 3 * time.Second, signals: 1},
		{name: "killed at once", options: StopOptions{Timeout: zero}, code: exitKilled},
		{name: "killed asleep", asleep: true, options: StopOptions{Timeout: zero}, code: exitKilled},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world, d *Daemon) {
				w.deaf[web] = test.deaf
				mustUp(t, d, webWith(func(s *host.ServiceSpec) {
					s.StopSignal, s.StopGrace, s.Restart.Mode = "SIGUSR1", 3*time.Second, host.RestartAlways
				}))
				if test.asleep {
					w.sleep(web)
				}
				begun := time.Now()
				err := d.stopAll(t.Context(), BatchRequest{IDs: []host.ContainerID{web}, Stop: test.options}, func(Progress) {})
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun).Truncate(time.Second); took != test.takes {
					t.Errorf("took %s, want %s", took, test.takes)
				}
				if got := d.unit(web).seen().ExitCode; got != test.code {
					t.Errorf("exit code is %d, want %d", got, test.code)
				}
				if got := len(w.order("wake")) > 0; got != test.woken {
					t.Errorf("woken: %v, want %v", got, test.woken)
				}
				if got := len(w.order("signal")); got != test.signals {
					t.Errorf("%d signals, want %d", got, test.signals)
				}
				time.Sleep(time.Minute)
				wantState(t, d, web, host.Exited) // whatever its policy
			})
		})
	}
}

// TestStatusDoesNotWait asks for the status while a service takes its time to
// stop.
func TestStatusDoesNotWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		w.deaf[web] = true
		mustUp(t, d, webWith(func(s *host.ServiceSpec) { s.StopGrace = time.Hour }))
		go d.stopAll(context.Background(), BatchRequest{IDs: []host.ContainerID{web}}, func(Progress) {})
		time.Sleep(time.Second)
		begun := time.Now()
		all, err := d.status(t.Context(), "p")
		if err != nil || len(all) != 1 || all[0].State != host.Stopping {
			t.Errorf("status is %+v, %v", all, err)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("it took %s", took)
		}
		w.exit(web, 0)
		time.Sleep(time.Second)
	})
}

func TestFailedStart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		w.broken[web] = errors.New("publish port 80: in use")
		err := d.up(t.Context(), UpRequest{Project: webWith(func(*host.ServiceSpec) {})}, func(Progress) {})
		if !errors.Is(err, w.broken[web]) {
			t.Errorf("error is %v", err)
		}
		wantState(t, d, web, host.Failed)
		delete(w.broken, web)
		mustUp(t, d, webWith(func(*host.ServiceSpec) {}))
		wantState(t, d, web, host.Awake)
	})
}

func TestHealth(t *testing.T) {
	withCheck := webWith(func(s *host.ServiceSpec) {
		s.Healthcheck = &host.Healthcheck{Test: []string{"CMD", "true"}, Interval: 30 * time.Second, Retries: 2}
	})
	t.Run("ready soon", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world, d *Daemon) {
			begun := time.Now()
			w.check = func(host.ContainerID) error {
				if time.Since(begun) < 3*time.Second {
					return errors.New("not yet")
				}
				return nil
			}
			if err := d.up(t.Context(), UpRequest{Project: withCheck, Wait: true}, func(Progress) {}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("healthy only after %s", took)
			}
		})
	})
	t.Run("never", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world, d *Daemon) {
			w.check = func(host.ContainerID) error { return errors.New("no") }
			begun := time.Now()
			if err := d.up(t.Context(), UpRequest{Project: withCheck, Wait: true}, func(Progress) {}); err == nil {
				t.Error("up succeeded")
			}
			if took := time.Since(begun); took < time.Minute || took > 75*time.Second { // as if checked every interval
				t.Errorf("unhealthy after %s, want about a minute", took)
			}
		})
	})
	t.Run("not while asleep", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world, d *Daemon) {
			if err := d.up(t.Context(), UpRequest{Project: withCheck, Wait: true}, func(Progress) {}); err != nil {
				t.Fatal(err)
			}
			w.sleep(web)
			before := len(w.order("check"))
			time.Sleep(time.Hour)
			if after := len(w.order("check")); after != before {
				t.Errorf("%d checks while asleep", after-before)
			}
			if _, _, h := d.unit(web).snapshot(); h != healthHealthy {
				t.Errorf("health is %q", h)
			}
		})
	})
}

func TestStateOnlyChangesAsHostSays(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, d *Daemon) {
		var wrong []string
		d.log = logTo(func(line string) { wrong = append(wrong, line) })
		p := webWith(func(s *host.ServiceSpec) { s.Restart.Mode = host.RestartAlways })
		mustUp(t, d, p)
		w.exit(web, 1)
		d.told(web)
		time.Sleep(time.Second)
		ids := BatchRequest{IDs: []host.ContainerID{web}}
		quiet := func(Progress) {}
		for _, err := range []error{d.stopAll(t.Context(), ids, quiet), d.startAll(t.Context(), ids, quiet), d.restartAll(t.Context(), ids, quiet),
			d.down(t.Context(), DownRequest{Project: "p"}, quiet)} {
			if err != nil {
				t.Error(err)
			}
		}
		if i := slices.IndexFunc(wrong, func(s string) bool { return s == "change state" }); i >= 0 {
			t.Errorf("log: %q", wrong)
		}
	})
}
