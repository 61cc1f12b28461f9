package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"torpor/container"
	"torpor/host"
	"torpor/keeper"
)

// world is a machine in memory: containers, supplies and a keeper that work,
// without processes.
type world struct {
	mu         sync.Mutex
	containers map[host.ContainerID]*fake
	networks   map[string]map[host.ContainerID]bool
	volumes    map[string]bool
	pids       int
	calls      []string          // what was asked for, in order
	onCall     func(call string) // with mu held

	broken map[host.ContainerID]error                                 // what Make returns
	deaf   map[host.ContainerID]bool                                  // does not end at its stop signal
	check  func(id host.ContainerID) error                            // what healthchecks say
	make   func(w *world, id host.ContainerID, spec host.ServiceSpec) // after a container was made
	ready  fakeReady
}

// fake is one container.
type fake struct {
	init, pid int
	state     host.State
	exited    bool
	code      int
	signals   []string
}

func newWorld() *world {
	return &world{containers: map[host.ContainerID]*fake{}, networks: map[string]map[host.ContainerID]bool{}, volumes: map[string]bool{},
		broken: map[host.ContainerID]error{}, deaf: map[host.ContainerID]bool{}, check: func(host.ContainerID) error { return nil },
		make: func(*world, host.ContainerID, host.ServiceSpec) {}, ready: fakeReady{made: map[host.ServiceName]bool{}}}
}

// clone is the world as a killed daemon leaves it.
func (w *world) cloneLocked() *world {
	c := newWorld()
	for id, f := range w.containers {
		copied := *f
		c.containers[id] = &copied
	}
	for name, on := range w.networks {
		c.networks[name] = maps.Clone(on)
	}
	c.volumes, c.pids = maps.Clone(w.volumes), w.pids
	return c
}

func (w *world) callLocked(format string, args ...any) {
	call := fmt.Sprintf(format, args...)
	w.calls = append(w.calls, call)
	if w.onCall != nil {
		w.onCall(call)
	}
}

// made counts how often a container was made.
func (w *world) made(id host.ContainerID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, call := range w.calls {
		if call == "make "+string(id) {
			n++
		}
	}
	return n
}

// order returns the calls that begin with a verb, without it.
func (w *world) order(verb string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, call := range w.calls {
		if rest, ok := strings.CutPrefix(call, verb+" "); ok {
			all = append(all, rest)
		}
	}
	return all
}

// exit ends the application of a container; nobody is told.
func (w *world) exit(id host.ContainerID, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exitLocked(id, code)
}

func (w *world) exitLocked(id host.ContainerID, code int) {
	f := w.containers[id]
	f.exited, f.code, f.pid, f.state = true, code, 0, host.Exited
}

func (w *world) sleep(id host.ContainerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.containers[id].state, w.containers[id].pid = host.Asleep, 0
}

func (w *world) fake(id host.ContainerID) fake {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.containers[id]; f != nil {
		return *f
	}
	return fake{}
}

func (w *world) Make(_ context.Context, r *Record) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("make %s", r.ID)
	if err := w.broken[r.ID]; err != nil {
		return 0, err
	}
	w.pids += 2
	w.containers[r.ID] = &fake{init: w.pids, pid: w.pids + 1, state: host.Awake}
	for _, v := range r.Volumes {
		w.volumes[v.Name] = true
	}
	w.make(w, r.ID, r.Spec)
	return w.pids, nil
}

func (w *world) Find(_ context.Context, r *Record) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.containers[r.ID]; f != nil {
		return f.init, nil
	}
	return 0, nil
}

func (w *world) Adopt(_ context.Context, r *Record, init int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.containers[r.ID]; f == nil || f.init != init {
		return fmt.Errorf("adopt %s: no init %d", r.ID, init)
	}
	return nil
}

func (w *world) Clear(_ context.Context, r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("clear %s", r.ID)
	delete(w.containers, r.ID)
	return nil
}

func (w *world) Release(r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("release %s", r.ID)
	for _, on := range w.networks {
		delete(on, r.ID)
	}
	return nil
}

func (w *world) Run(_ context.Context, id host.ContainerID, _ container.ExecSpec) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("check %s", id)
	return w.check(id)
}

func (w *world) Signal(pid int, signal string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, f := range w.containers {
		if f.pid == pid {
			w.callLocked("signal %s", id)
			f.signals = append(f.signals, signal)
			if !w.deaf[id] {
				w.exitLocked(id, 0)
			}
			return nil
		}
	}
	return errors.New("no such process")
}

func (w *world) Image(_ context.Context, _ *host.ProjectSpec, spec *host.ServiceSpec, _ func(Progress)) (imageDefaults, error) {
	if spec.Image == "missing" {
		return imageDefaults{}, fmt.Errorf("pull %s: %w", spec.Image, host.ErrNotFound)
	}
	return imageDefaults{Name: spec.Image}, nil
}

func (w *world) Reserve(r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("reserve %s", r.ID)
	for _, n := range r.Networks {
		if w.networks[n.Name] == nil {
			w.networks[n.Name] = map[host.ContainerID]bool{}
		}
		w.networks[n.Name][r.ID] = true
	}
	return nil
}

func (w *world) TakeSecrets(host.ContainerID, *host.ServiceSpec) error { return nil }

func (w *world) Networks() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.networks))
}

func (w *world) RemoveNetwork(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("remove network %s", name)
	if len(w.networks[name]) == 0 {
		delete(w.networks, name)
	}
	return nil
}

func (w *world) ReleaseVolume(string) error { return nil }

func (w *world) RemoveVolume(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("remove volume %s", name)
	delete(w.volumes, name)
	return nil
}

func (w *world) Sweep(func(host.ContainerID) bool) error { return nil }

func (w *world) Restore() error { return nil }

func (w *world) WriteHosts(*Record) error { return nil }

func (w *world) get(context.Context) (keepers, error) { return w, nil }

func (w *world) lost(keepers) {}

func (w *world) Status(context.Context) ([]keeper.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []keeper.Status
	for id, f := range w.containers {
		all = append(all, keeper.Status{ID: id, State: f.state, MainPID: f.pid, Exited: f.exited, ExitCode: f.code})
	}
	return all, nil
}

func (w *world) Sleep(_ context.Context, id host.ContainerID) (keeper.SleepReport, error) {
	w.sleep(id)
	return keeper.SleepReport{}, nil
}

func (w *world) Wake(_ context.Context, id host.ContainerID, _ string) (keeper.WakeReport, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.containers[id]
	if f == nil {
		return keeper.WakeReport{}, host.ErrNotFound
	}
	if f.state == host.Asleep {
		w.callLocked("wake %s", id)
		f.state, f.pid = host.Awake, f.init+1
	}
	return keeper.WakeReport{}, nil
}

func (w *world) Activity(context.Context, host.ContainerID) error { return nil }

func (w *world) Sockets(_ context.Context, id host.ContainerID, brief bool) (keeper.SocketReport, error) {
	report := keeper.SocketReport{Reasons: []string{"known of " + string(id)}}
	if !brief {
		at := netip.MustParseAddrPort("10.0.0.2:80")
		report.Connections = []keeper.Connection{{Local: at, Remote: at, State: keeper.ConnectionParked, Idle: time.Minute, Why: "idle for 60 s"}}
	}
	return report, nil
}

func (w *world) BeginProbe(_ context.Context, id host.ContainerID, _ time.Duration) (bool, error) {
	return w.fake(id).state == host.Awake, nil
}

func (w *world) EndProbe(context.Context, host.ContainerID) error { return nil }

func (w *world) Watch(ctx context.Context, _ func(host.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

// testDaemon is a daemon in a world, with a state directory of its own.
func testDaemon(t *testing.T, w *world, stateDir string) *Daemon {
	t.Helper()
	config := Config{StateDir: stateDir, RunDir: stateDir + "/run"}
	if err := config.openState(); err != nil {
		t.Fatal(err)
	}
	return &Daemon{config: config, log: slog.New(slog.DiscardHandler), events: newEventLog(), units: map[host.ContainerID]*unit{},
		keeper: w, containers: w, supplies: w, starts: newStarts(), ending: context.Background()}
}

// end lets go of all units, as the end of the daemon does.
func (d *Daemon) end() {
	d.refilling.Wait()
	for _, u := range d.all() {
		u.stopCare()
	}
}

// testProject is a project of services on one network.
func testProject(services ...host.ServiceSpec) host.ProjectSpec {
	p := host.ProjectSpec{Name: "p", Networks: map[string]host.NetworkSpec{"default": {Name: "p_default"}}, Volumes: map[string]host.VolumeSpec{"data": {Name: "p_data"}}}
	for _, s := range services {
		s.Project, s.Image, s.Scale = p.Name, "test", max(s.Scale, 1)
		s.Networks = []host.NetworkAttachment{{Network: "default"}}
		p.Services = append(p.Services, s)
	}
	return p
}

func mustUp(t *testing.T, d *Daemon, p host.ProjectSpec) {
	t.Helper()
	if err := d.up(t.Context(), UpRequest{Project: p}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
}

// told makes the daemon look after an exit, as the keeper's event does, and
// waits until it did.
func (d *Daemon) told(id host.ContainerID) {
	u := d.unit(id)
	u.do(func() { u.noticeExit(context.Background()) })
}

func wantState(t *testing.T, d *Daemon, id host.ContainerID, want host.State) {
	t.Helper()
	if got, reason, _ := d.unit(id).snapshot(); got != want {
		t.Errorf("%s is %s (%s), want %s", id, got, reason, want)
	}
}

func emptyDir(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%s holds %v, %v", dir, entries, err)
	}
}
