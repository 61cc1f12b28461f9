package daemon

import (
	"bytes"
	"cmp"
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
	"torpor/volume"
	"torpor/wire"
)

// Daemon is the process behind torpor serve.
type Daemon struct {
	config     Config
	log        *slog.Logger
	containers containers
	supplies   supplies
	runtime    *container.Runtime
	images     *image.Store
	keeper     keeperSource
	volumes    *volumeServers
	events     *eventLog
	projects   projectLocks
	close      []func() error

	starts    chan struct{}   // one for each start under way
	ending    context.Context // ends with Serve
	refilling sync.WaitGroup  // makers of spares
	hosts     sync.Mutex      // of the containers' hosts files
	removing  sync.Mutex      // of units and volumes

	mu    sync.Mutex
	units map[host.ContainerID]*unit
}

// New opens the state directory, which one daemon at a time may use. The
// caller must Serve.
func New(config Config, log *slog.Logger) (_ *Daemon, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("start daemon: it needs root (sudo torpor serve)")
	}
	if config, err = config.withDefaults(); err != nil {
		return nil, err
	}
	if err := config.openState(); err != nil {
		return nil, err
	}
	link := &keeperLink{config: config}
	d := &Daemon{config: config, log: log, events: newEventLog(), units: map[host.ContainerID]*unit{}, keeper: link, starts: newStarts(), ending: context.Background()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.closeParts())
		}
	}()
	lock, err := lockState(config.StateDir)
	if err != nil {
		return nil, err
	}
	d.close = append(d.close, lock.Close)
	if d.runtime, err = container.OpenRuntime(config.Runtime, filepath.Join(config.RunDir, "runtime")); err != nil {
		return nil, err
	}
	net, err := network.Open(network.Config{StateFile: filepath.Join(config.StateDir, "network.json"), Table: tableName(config.StateDir)})
	if err != nil {
		return nil, err
	}
	d.close = append(d.close, net.Close)
	names := network.NewResolver(net)
	d.close = append(d.close, names.Close)
	if d.images, err = image.Open(filepath.Join(config.StateDir, "images")); err != nil {
		return nil, err
	}
	d.close = append(d.close, d.images.Close)
	for _, err := range d.images.Damaged() {
		log.Warn("open images", "error", err)
	}
	d.volumes = newVolumeServers(config, d.events.send)
	b := &builder{config: config, volumes: d.volumes, runtime: d.runtime, network: net, names: names, images: d.images, keeper: link,
		secrets: &secretStore{dir: filepath.Join(config.RunDir, "secrets")}, warn: func(err error) { log.Warn("answer names", "error", err) }}
	d.containers, d.supplies = b, b
	return d, config.writeInit()
}

// closeParts lets go of what New opened, the last first.
func (d *Daemon) closeParts() error {
	var errs []error
	for _, f := range slices.Backward(d.close) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// writeInit makes the init that containers run. Those that run have an older
// one open: it is replaced, not changed.
func (c *Config) writeInit() error {
	if b, err := os.ReadFile(c.initPath()); err == nil && bytes.Equal(b, blob.InitELF()) {
		return nil
	}
	temporary := c.initPath() + ".new"
	if err := os.WriteFile(temporary, blob.InitELF(), 0o755); err != nil {
		return fmt.Errorf("write init: %w", err)
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return fmt.Errorf("write init: %w", err)
	}
	return os.Rename(temporary, c.initPath())
}

// tableName keeps the rules of two daemons, with two state directories, apart.
func tableName(stateDir string) string {
	if stateDir == DefaultStateDir {
		return "torpor"
	}
	return "torpor" + strings.NewReplacer("/", "_", ".", "_").Replace(stateDir)
}

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
// answered. It lets go of all that New opened.
func (d *Daemon) Serve(ctx context.Context, ready func()) (err error) {
	defer func() { err = errors.Join(err, d.closeParts()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.ending = ctx
	if _, err := d.keeper.get(ctx); err != nil {
		return err
	}
	var followers sync.WaitGroup
	defer func() {
		cancel()
		followers.Wait()
		d.refilling.Wait()
		for _, u := range d.all() {
			u.stopCare()
		}
	}()
	if err := d.volumes.sweep(ctx); err != nil {
		d.log.Error("sweep volumes", "error", err)
	}
	// Services may be on volumes: their servers are there first.
	followers.Go(func() {
		d.volumes.run(ctx, func(what string, log volume.LogID, err error) { d.log.Warn(what, "log", string(log), "error", err) })
	})
	if err := d.supplies.Restore(); err != nil {
		d.log.Error("restore networks", "error", err) // services that need them say so again
	}
	if err := d.load(ctx); err != nil {
		return err
	}
	listener, err := wire.Listen(d.config.Socket) // the lock says that no other daemon answers there
	if err != nil {
		return err
	}
	followers.Go(func() { d.followKeeper(ctx) })
	server := &http.Server{Handler: d.routes(), BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	d.log.Info("serving", "socket", d.config.Socket, "state", d.config.StateDir)
	ready()
	err = server.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// addUnit takes a container into care.
func (d *Daemon) addUnit(r *Record) *unit {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := newUnit(d, r)
	d.units[r.ID] = u
	return u
}

// dropUnit ends the care for a container that was removed.
func (d *Daemon) dropUnit(u *unit) {
	d.mu.Lock()
	delete(d.units, u.id)
	d.mu.Unlock()
	u.stopCare()
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
	slices.SortFunc(units, func(a, b *unit) int {
		return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.service, b.service), cmp.Compare(a.number, b.number))
	})
	return units
}

// ofProject returns the units of a project; of all for "".
func (d *Daemon) ofProject(name host.ProjectName) []*unit {
	return slices.DeleteFunc(d.all(), func(u *unit) bool { return name != "" && u.project != name })
}
