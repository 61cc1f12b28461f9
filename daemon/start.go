package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"torpor/checkpoint"
	"torpor/container"
	"torpor/container/network"
	"torpor/host"
	"torpor/image"
	"torpor/keeper"
	"torpor/kernel/mount"
)

// start makes the container and starts the application. On an error nothing of
// it is left but its record.
func (u *unit) start(ctx context.Context) error {
	u.become(host.Starting, "")
	if err := u.make(ctx); err != nil {
		err = errors.Join(err, u.clear(context.WithoutCancel(ctx)))
		u.become(host.Failed, err.Error())
		u.event(host.EventError, "start: "+err.Error(), nil)
		return err
	}
	u.event(host.EventStart, "", nil)
	return u.afterStart(ctx)
}

// afterStart decides when the service is ready.
func (u *unit) afterStart(ctx context.Context) error {
	check := u.record.healthcheck()
	u.setHealth(healthNone)
	if check != nil {
		u.setHealth(healthStarting)
		u.health = startHealth(u, *check)
	}
	u.become(host.Awake, "")
	return nil
}

// make is everything from the root file system to the running application.
func (u *unit) make(ctx context.Context) error {
	d, r := u.daemon, u.record
	if err := d.runtime.Delete(ctx, u.id); err != nil {
		return err
	}
	bundleDir := filepath.Join(u.dir(), "bundle")
	rootfs := filepath.Join(bundleDir, "rootfs")
	if err := u.mountRoot(rootfs); err != nil {
		return err
	}
	netns, err := u.connect()
	if err != nil {
		return err
	}
	bundle, err := u.bundle(rootfs, netns)
	if err != nil {
		return err
	}
	if err := bundle.Write(bundleDir); err != nil {
		return err
	}
	user, err := container.ResolveUser(rootfs, bundle.User, nil)
	if err != nil {
		return err
	}
	stdio, err := container.NewStdio(container.StdioSpec{Dir: u.runDir(), UID: int(user.UID), GID: int(user.GID), TTY: r.Spec.TTY, StdinOpen: r.Spec.StdinOpen})
	if err != nil {
		return err
	}
	defer stdio.Close()
	if u.init, err = d.runtime.Create(ctx, u.id, bundleDir, stdio); err != nil {
		return err
	}
	if err := u.record.save(u.dir()); err != nil {
		return err
	}
	return u.run1(ctx, stdio)
}

// run1 hands the created container to the keeper, so that nothing it writes is
// lost, and starts it. With a terminal its init runs first, to take the master.
func (u *unit) run1(ctx context.Context, stdio *container.Stdio) error {
	console, err := stdio.Console()
	if err != nil {
		return err
	}
	if console == nil {
		if err := u.adopt(ctx); err != nil {
			return err
		}
		return u.daemon.runtime.Start(ctx, u.id)
	}
	defer console.Close()
	if err := u.daemon.runtime.Start(ctx, u.id); err != nil {
		return err
	}
	holder := checkpoint.Holder{PID: u.init, Socket: filepath.Join(u.runDir(), "init.sock")}
	if err := holder.Keep([]int{int(console.Fd())}); err != nil {
		return err
	}
	return u.adopt(ctx)
}

// runDir holds FIFOs and sockets; its path is short enough for a socket.
func (u *unit) runDir() string { return filepath.Join(u.dir(), "run") }

func (u *unit) adopt(ctx context.Context) error {
	if u.init == 0 {
		return nil
	}
	client, err := u.daemon.keeper.get(ctx)
	if err != nil {
		return err
	}
	r := u.record
	target := keeper.Target{ID: u.id, Project: u.project, Service: u.service, InitPID: u.init, RunDir: u.runDir(),
		CheckpointDir: filepath.Join(u.dir(), "checkpoint"), LogPath: filepath.Join(u.dir(), "log"),
		SleepAfter: r.Spec.Torpor.SleepAfter, Verify: r.Spec.Torpor.Verify, NoSleepReason: noSleepReason(&r.Spec)}
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

// mountRoot mounts the root file system with a private writable layer.
func (u *unit) mountRoot(rootfs string) error {
	upper, work := filepath.Join(u.dir(), "upper"), filepath.Join(u.dir(), "work")
	mounted, err := mount.Mounted(rootfs)
	if err != nil || mounted {
		return err
	}
	root := image.RootFS{Upper: upper, Work: work, Target: rootfs}
	if base := u.record.Spec.Torpor.RootFS; base != "" {
		return image.MountDir(base, []string{u.daemon.config.StateDir, u.daemon.config.RunDir}, root)
	}
	img, err := u.daemon.images.Resolve(string(u.record.Image.ID))
	if err != nil {
		return err
	}
	return u.daemon.images.Mount(img.Layers, root)
}

// connect makes the network namespace and publishes ports.
func (u *unit) connect() (string, error) {
	spec := &u.record.Spec
	if spec.NetworkMode == host.NetworkHost {
		return "", nil
	}
	netns, err := u.daemon.network.Attach(u.id, u.record.Attachments)
	if err != nil || len(spec.Ports) == 0 {
		return netns, err
	}
	if len(u.record.Attachments) == 0 {
		return "", fmt.Errorf("publish ports of %s: it is on no network: %w", u.id, host.ErrInvalid)
	}
	ports, err := u.daemon.network.Publish(u.id, u.record.Attachments[0].Address, spec.Ports)
	if err != nil {
		return "", err
	}
	u.record.Ports = nil
	for _, p := range ports {
		u.record.Ports = append(u.record.Ports, p.String())
	}
	return netns, nil
}

// bundle resolves what the spec leaves to image and host.
func (u *unit) bundle(rootfs, netns string) (*container.Bundle, error) {
	r := u.record
	args := r.args()
	if len(args) == 0 {
		return nil, fmt.Errorf("start %s: neither the service nor its image says which command to run: %w", u.id, host.ErrInvalid)
	}
	mounts, err := u.mounts(rootfs)
	if err != nil {
		return nil, err
	}
	b := &container.Bundle{ID: u.id, Service: r.Spec, RootFS: rootfs, InitHost: u.daemon.initPath(), Args: args, NetNS: netns,
		Mounts: mounts, CgroupPath: "/torpor/" + string(u.id), Hostname: u.hostname(), User: r.Spec.User, WorkingDir: r.Spec.WorkingDir}
	if b.User == "" {
		b.User = r.Image.User
	}
	if b.WorkingDir == "" {
		b.WorkingDir = r.Image.WorkingDir
	}
	b.Env = environment(r, b.Hostname)
	return b, nil
}

func (u *unit) hostname() string {
	if u.record.Spec.Hostname != "" {
		return u.record.Spec.Hostname
	}
	return string(u.service)
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the image's, overridden by the service's.
func environment(r *Record, hostname string) []string {
	all := map[string]string{"PATH": defaultPath, "HOSTNAME": hostname}
	for _, pair := range r.Image.Env {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	if r.Spec.TTY {
		all["TERM"] = "xterm"
	}
	maps.Copy(all, r.Spec.Environment)
	var env []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+all[name])
	}
	return env
}

// clear takes the container away: processes, root mount, network namespace's
// rules. Its writable layer, addresses and record stay.
func (u *unit) clear(ctx context.Context) error {
	u.init = 0
	var errs []error
	if client, err := u.daemon.keeper.get(ctx); err == nil {
		errs = append(errs, client.Forget(ctx, u.id))
	} else {
		errs = append(errs, err)
	}
	errs = append(errs, u.daemon.runtime.Delete(ctx, u.id))
	rootfs := filepath.Join(u.dir(), "bundle", "rootfs")
	if mounted, err := mount.Mounted(rootfs); err == nil && mounted {
		errs = append(errs, mount.Detach(rootfs))
	}
	return errors.Join(errs...)
}

// remove takes everything away.
func (u *unit) remove(ctx context.Context) error {
	err := errors.Join(u.clear(ctx), u.daemon.network.Detach(u.id), u.daemon.images.Release(string(u.id)), os.RemoveAll(u.secretsDir()))
	if err != nil {
		return fmt.Errorf("remove %s: %w", u.id, err)
	}
	if err := os.RemoveAll(u.dir()); err != nil {
		return fmt.Errorf("remove %s: %w", u.id, err)
	}
	u.event(host.EventRemove, "", nil)
	return nil
}

// hostEntries are the names that a container knows: itself, its peers on the
// same networks, and extra hosts.
func (u *unit) hostEntries() []network.HostEntry {
	var entries []network.HostEntry
	for _, extra := range u.record.Spec.ExtraHosts {
		name, value, _ := strings.Cut(extra, "=")
		if value == "host-gateway" && len(u.record.Attachments) > 0 {
			entries = append(entries, network.HostEntry{Address: u.record.Attachments[0].Gateway, Names: []string{name}})
		} else if a, err := netip.ParseAddr(value); err == nil {
			entries = append(entries, network.HostEntry{Address: a, Names: []string{name}})
		}
	}
	for _, a := range u.record.Attachments {
		for _, peer := range u.daemon.all() {
			for _, p := range peer.whereabouts() {
				if a.Network == p.attachment.Network {
					entries = append(entries, network.HostEntry{Address: p.attachment.Address, Names: p.names})
				}
			}
		}
	}
	return entries
}

// names are what peers on a network call this container.
func (u *unit) names(on string) []string {
	names := []string{string(u.service)}
	if u.record.Spec.ContainerName != "" {
		names = append(names, u.record.Spec.ContainerName)
	}
	for _, a := range u.record.Spec.Networks {
		if u.record.Networks[a.Network] == on {
			names = append(names, a.Aliases...)
		}
	}
	names = append(names, string(u.id))
	slices.Sort(names[1:])
	return slices.Compact(names)
}

// writeHosts brings the hosts files of every container up to date.
func (d *Daemon) writeHosts() error {
	var errs []error
	for _, u := range d.all() {
		u.do(func() {
			path := filepath.Join(u.dir(), "etc", "hosts")
			if _, err := os.Stat(path); err == nil {
				errs = append(errs, network.WriteHosts(path, u.hostEntries()))
			}
		})
	}
	return errors.Join(errs...)
}

// stopLimit bounds everything about a stop but the service's own grace.
const stopLimit = 30 * time.Second
