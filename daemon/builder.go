package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"torpor/checkpoint"
	"torpor/container"
	"torpor/container/network"
	"torpor/host"
	"torpor/image"
	"torpor/keeper"
	"torpor/kernel/signal"
)

// builder makes real containers of the parts. It implements containers and
// supplies; operations on different containers may run at once.
type builder struct {
	config  Config
	runtime *container.Runtime
	network *network.Host
	names   *network.Resolver
	images  *image.Store
	keeper  *keeperLink
	secrets *secretStore
	volumes *volumeServers
	warn    func(error)
}

func (b *builder) dir(r *Record) string       { return b.config.serviceDir(r.ID) }
func (b *builder) bundleDir(r *Record) string { return filepath.Join(b.dir(r), "bundle") }
func (b *builder) rootfs(r *Record) string    { return filepath.Join(b.bundleDir(r), "rootfs") }

// runDir holds FIFOs and sockets; its path is short enough for a socket.
func (b *builder) runDir(r *Record) string { return filepath.Join(b.dir(r), "run") }

func (b *builder) upper(r *Record) string { return filepath.Join(b.dir(r), "upper") }

// Make implements containers.
func (b *builder) Make(ctx context.Context, r *Record) (int, error) {
	args := r.args()
	if len(args) == 0 {
		return 0, fmt.Errorf("start %s: neither the service nor its image says which command to run: %w", r.ID, host.ErrInvalid)
	}
	if err := b.Clear(ctx, r); err != nil {
		return 0, err
	}
	return b.make(ctx, r, args)
}

// make makes a container of which nothing is there. Without args its init
// starts no application, and nobody is let in.
func (b *builder) make(ctx context.Context, r *Record, args []string) (int, error) {
	if err := b.Reserve(r); err != nil {
		return 0, err
	}
	if err := b.mountRoot(r); err != nil {
		return 0, err
	}
	netns, err := b.connect(r)
	if err != nil {
		return 0, err
	}
	if len(args) > 0 {
		if err := b.publish(r); err != nil {
			return 0, err
		}
	}
	if r.gated(args) {
		if err := b.network.CloseGate(r.ID); err != nil {
			return 0, err
		}
	}
	bundle, err := b.bundle(ctx, r, netns, args)
	if err != nil {
		return 0, err
	}
	if err := bundle.Write(b.bundleDir(r)); err != nil {
		return 0, err
	}
	user, err := container.ResolveUser(b.rootfs(r), bundle.User, nil)
	if err != nil {
		return 0, err
	}
	stdio, err := container.NewStdio(container.StdioSpec{Dir: b.runDir(r), UID: int(user.UID), GID: int(user.GID), TTY: r.Spec.TTY, StdinOpen: r.Spec.StdinOpen})
	if err != nil {
		return 0, err
	}
	defer stdio.Close()
	init, err := b.runtime.Create(ctx, r.ID, b.bundleDir(r), stdio)
	if err != nil {
		return 0, err
	}
	return init, b.begin(ctx, r, init, stdio)
}

// begin hands the created container to the keeper, so that nothing it writes
// is lost, and starts it. With a terminal its init runs first, to take the
// master.
func (b *builder) begin(ctx context.Context, r *Record, init int, stdio *container.Stdio) error {
	console, err := stdio.Console()
	if err != nil {
		return err
	}
	if console == nil {
		if err := b.Adopt(ctx, r, init); err != nil {
			return err
		}
		return b.runtime.Start(ctx, r.ID)
	}
	defer console.Close()
	if err := b.runtime.Start(ctx, r.ID); err != nil {
		return err
	}
	holder := checkpoint.Holder{PID: init, Socket: filepath.Join(b.runDir(r), "init.sock")}
	if err := holder.Keep([]int{int(console.Fd())}); err != nil {
		return err
	}
	return b.Adopt(ctx, r, init)
}

// Adopt implements containers.
func (b *builder) Adopt(ctx context.Context, r *Record, init int) error {
	client, err := b.keeper.dial(ctx)
	if err != nil {
		return err
	}
	target := keeper.Target{ID: r.ID, Project: r.Spec.Project, Service: r.Spec.Name, InitPID: init, RunDir: b.runDir(r),
		CheckpointDir: filepath.Join(b.dir(r), "checkpoint"), LogPath: logPath(b.dir(r)),
		SleepAfter: r.Spec.Torpor.SleepAfter, Verify: r.Spec.Torpor.Verify, Connections: r.Spec.Torpor.Connections, NoSleepReason: noSleepReason(&r.Spec)}
	if r.Spec.TTY {
		target.TTY, target.Kept = true, 1
	}
	return client.Adopt(ctx, target)
}

// noSleepReason says why a service can never sleep, or "".
func noSleepReason(s *host.ServiceSpec) string {
	switch {
	case s.Torpor.NeverSleep:
		return "x-torpor says sleep: never"
	case s.NetworkMode == host.NetworkHost:
		return "network_mode is host: its packets can not be told from the host's"
	case s.PIDMode == "host":
		return "pid is host: its process ids can not be kept free"
	}
	return ""
}

// Find implements containers.
func (b *builder) Find(ctx context.Context, r *Record) (int, error) {
	state, err := b.runtime.State(ctx, r.ID)
	if errors.Is(err, host.ErrNotFound) || err == nil && state.Status != "running" {
		return 0, nil
	}
	return state.PID, err
}

// mountRoot mounts the root file system with a private writable layer.
func (b *builder) mountRoot(r *Record) error {
	target := b.rootfs(r)
	// The bundle is for root alone: its tree holds what the image's users own.
	if err := os.MkdirAll(b.bundleDir(r), 0o711); err != nil {
		return fmt.Errorf("make bundle directory: %w", err)
	}
	if err := image.Unmount(target); err != nil {
		return err
	}
	m := image.RootFS{Upper: b.upper(r), Work: filepath.Join(b.dir(r), "work"), Target: target}
	if base := r.Spec.Torpor.RootFS; base != "" {
		return image.MountDir(base, []string{b.config.StateDir, b.config.RunDir}, m)
	}
	return b.images.Mount(r.Image.Layers, m)
}

// connect makes the network namespace.
func (b *builder) connect(r *Record) (string, error) {
	if r.Spec.NetworkMode == host.NetworkHost {
		return "", nil
	}
	return b.network.Attach(r.ID, r.Attachments)
}

// publish lets clients in at published ports.
func (b *builder) publish(r *Record) error {
	r.Ports = nil
	if len(r.Spec.Ports) == 0 || r.Spec.NetworkMode == host.NetworkHost {
		return nil
	}
	i := slices.IndexFunc(r.Attachments, func(a network.Attachment) bool { return !a.Internal })
	if i < 0 {
		return fmt.Errorf("publish ports of %s: it is on no network that leads out: %w", r.ID, host.ErrInvalid)
	}
	ports, err := b.network.Publish(r.ID, r.group(), r.Attachments[i].Address, r.Spec.Ports)
	for _, p := range ports {
		r.Ports = append(r.Ports, p.String())
	}
	return err
}

// bundle resolves what the spec leaves to image and host.
func (b *builder) bundle(ctx context.Context, r *Record, netns string, args []string) (*container.Bundle, error) {
	mounts, err := b.mounts(ctx, r)
	if err != nil {
		return nil, err
	}
	own, err := b.machineID(r)
	if err != nil {
		return nil, fmt.Errorf("make machine id: %w", err)
	}
	mounts = append(mounts, own...)
	bundle := &container.Bundle{ID: r.ID, Service: r.Spec, RootFS: b.rootfs(r), InitHost: b.config.initPath(), Args: args, NetNS: netns,
		Mounts: mounts, CgroupPath: "/torpor/" + string(r.ID), Hostname: r.hostname(), User: r.Spec.User, WorkingDir: r.Spec.WorkingDir}
	if bundle.User == "" {
		bundle.User = r.Image.User
	}
	if bundle.WorkingDir == "" {
		bundle.WorkingDir = r.Image.WorkingDir
	}
	bundle.Env = environment(r, bundle.Hostname)
	return bundle, nil
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the image's, overridden by the service's.
func environment(r *Record, hostname string) []string {
	all := map[string]string{"PATH": defaultPath, "HOSTNAME": hostname}
	if r.Spec.TTY {
		all["TERM"] = "xterm"
	}
	for _, pair := range r.Image.Env {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	maps.Copy(all, r.Spec.Environment)
	var env []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+all[name])
	}
	return env
}

// Clear implements containers. The keeper is told first: the end that follows
// is no exit of the application.
func (b *builder) Clear(ctx context.Context, r *Record) error {
	var errs []error
	if client, err := b.keeper.dial(ctx); err == nil {
		errs = append(errs, client.Forget(ctx, r.ID))
	} else {
		errs = append(errs, err)
	}
	errs = append(errs, b.runtime.Delete(ctx, r.ID), image.Unmount(b.rootfs(r)), b.network.Disconnect(r.ID))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear %s: %w", r.ID, err)
	}
	return nil
}

// Release implements containers.
func (b *builder) Release(r *Record) error {
	return errors.Join(b.network.Detach(r.ID), b.images.Release(string(r.ID)), b.secrets.remove(r.ID))
}

// Run implements containers.
func (b *builder) Run(ctx context.Context, id host.ContainerID, e container.ExecSpec) error {
	code, err := b.runtime.Exec(ctx, id, e, container.ExecStreams{})
	if err == nil && code != 0 {
		err = fmt.Errorf("run %s in %s: it ended with %d", e.Args[0], id, code)
	}
	return err
}

// Signal implements containers.
func (*builder) Signal(mainPID int, name string) error {
	number, err := signal.Parse(name)
	if err != nil {
		return err
	}
	return container.Signal(mainPID, number)
}

// Reserve implements supplies. It may be repeated.
func (b *builder) Reserve(r *Record) error {
	if r.Image.ID != "" {
		if err := b.images.Use(r.Image.ID, string(r.ID)); err != nil {
			return err
		}
	}
	if r.Spec.NetworkMode != host.NetworkBridge {
		return nil
	}
	var attachments []host.NetworkAttachment
	for _, a := range r.Spec.Networks {
		spec := r.Networks[a.Network]
		if err := b.network.EnsureNetwork(spec); err != nil {
			return err
		}
		a.Network = spec.Name
		if r.Spare {
			a.Aliases = nil // nobody is to find it yet
		}
		attachments = append(attachments, a)
	}
	var err error
	if r.Attachments, err = b.network.Reserve(r.ID, attachments); err != nil {
		return err
	}
	b.answerNames()
	return b.network.SetNames(r.ID, r.names()...)
}

// answerNames lets the resolver follow the networks. Without it containers
// still know their peers by their hosts files.
func (b *builder) answerNames() {
	if err := b.names.Sync(); err != nil {
		b.warn(err)
	}
}

// Restore implements supplies.
func (b *builder) Restore() error {
	err := b.network.Restore()
	b.answerNames()
	return err
}

// RemoveNetwork implements supplies.
func (b *builder) RemoveNetwork(name string) error {
	err := b.network.RemoveNetwork(name)
	b.answerNames()
	return err
}

// Networks implements supplies.
func (b *builder) Networks() []string { return b.network.Networks() }

// TakeSecrets implements supplies.
func (b *builder) TakeSecrets(id host.ContainerID, spec *host.ServiceSpec) error {
	return b.secrets.take(id, spec)
}

// Sweep implements supplies.
func (b *builder) Sweep(known func(host.ContainerID) bool) error {
	errs := []error{b.secrets.sweep(known)}
	for _, img := range b.images.List() {
		for _, holder := range b.images.Holders(img.ID) {
			if !known(host.ContainerID(holder)) {
				errs = append(errs, b.images.Release(holder))
			}
		}
	}
	return errors.Join(errs...)
}
