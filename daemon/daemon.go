package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"torpor/checkpoint/blob"
	"torpor/container"
	"torpor/container/network"
	"torpor/host"
	"torpor/image"
)

// Daemon is the process behind torpor serve.
type Daemon struct {
	config  Config
	log     *slog.Logger
	runtime *container.Runtime
	network *network.Host
	images  *image.Store
	keeper  *keeperLink
	events  *eventLog
	lock    *os.File

	mu    sync.Mutex
	units map[host.ContainerID]*unit
}

// New opens the state directory, which one daemon at a time may use.
func New(config Config, log *slog.Logger) (_ *Daemon, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("start daemon: it needs root (sudo torpor serve)")
	}
	if config, err = config.withDefaults(); err != nil {
		return nil, err
	}
	if err := config.openState(); err != nil {
		return nil, err
	}
	d := &Daemon{config: config, log: log, events: newEventLog(), units: map[host.ContainerID]*unit{}, keeper: &keeperLink{config: config}}
	if d.lock, err = lockState(config.StateDir); err != nil {
		return nil, err
	}
	if d.runtime, err = container.OpenRuntime(config.Runtime, filepath.Join(config.RunDir, "runtime")); err != nil {
		return nil, err
	}
	if d.network, err = network.Open(network.Config{StateFile: filepath.Join(config.StateDir, "network.json"), Table: tableName(config.StateDir)}); err != nil {
		return nil, err
	}
	if d.images, err = image.Open(filepath.Join(config.StateDir, "images")); err != nil {
		return nil, err
	}
	return d, os.WriteFile(d.initPath(), blob.InitELF(), 0o755)
}

// tableName keeps the rules of two daemons, with two state directories, apart.
func tableName(stateDir string) string {
	if stateDir == DefaultStateDir {
		return "torpor"
	}
	return "torpor" + strings.NewReplacer("/", "_", ".", "_").Replace(stateDir)
}

// initPath is where containers get their init from.
func (d *Daemon) initPath() string { return filepath.Join(d.config.StateDir, "init") }

func lockState(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock state directory %s: another daemon uses it: %w", dir, host.ErrExists)
	}
	return f, nil
}

// Serve finds the services that run, answers the API until the context ends,
// and leaves the services as they are. ready is called when requests are
// answered.
func (d *Daemon) Serve(ctx context.Context, ready func()) error {
	defer d.lock.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := d.keeper.get(ctx); err != nil {
		return err
	}
	if err := d.load(ctx); err != nil {
		return err
	}
	listener, err := listen(d.config.Socket)
	if err != nil {
		return err
	}
	var followers sync.WaitGroup
	followers.Go(func() { d.followKeeper(ctx) })
	server := &http.Server{Handler: d.routes(), BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	d.log.Info("serving", "socket", d.config.Socket, "state", d.config.StateDir)
	ready()
	err = server.Serve(listener)
	cancel()
	followers.Wait()
	for _, u := range d.all() {
		u.stopCare()
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func listen(path string) (net.Listener, error) {
	// The lock says that no daemon answers here, so it is an old one's.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return listener, os.Chmod(path, 0o600)
}

// load reads the records and finds each container in whatever state it is.
func (d *Daemon) load(ctx context.Context) error {
	paths, err := filepath.Glob(filepath.Join(d.config.StateDir, "services", "*", "spec.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		r, err := readRecord(path)
		if err != nil {
			d.log.Error("load service", "error", err)
			continue
		}
		u := d.addUnit(r)
		go u.recover(ctx)
	}
	return nil
}

// addUnit takes a container into care.
func (d *Daemon) addUnit(r *Record) *unit {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := newUnit(d, r)
	d.units[r.ID] = u
	return u
}

// readopt hands every running container to a new keeper.
func (d *Daemon) readopt(ctx context.Context) {
	for _, u := range d.all() {
		u.do(func() {
			if err := u.adopt(ctx); err != nil {
				d.log.Error("adopt", "container", u.record.ID, "error", err)
			}
		})
	}
}

// unit returns the container in care, or nil.
func (d *Daemon) unit(id host.ContainerID) *unit {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.units[id]
}

// all returns the units, by id.
func (d *Daemon) all() []*unit {
	d.mu.Lock()
	defer d.mu.Unlock()
	var units []*unit
	for _, u := range d.units {
		units = append(units, u)
	}
	slices.SortFunc(units, func(a, b *unit) int { return strings.Compare(string(a.id), string(b.id)) })
	return units
}

// ofProject returns the units of a project; of all for "".
func (d *Daemon) ofProject(name host.ProjectName) []*unit {
	return slices.DeleteFunc(d.all(), func(u *unit) bool { return name != "" && u.project != name })
}
