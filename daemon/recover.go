package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"torpor/host"
)

// load reads the records and finds each container in whatever state it is. It
// returns when all of them were found; starts go on behind.
func (d *Daemon) load(ctx context.Context) error {
	if err := d.sweep(); err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(d.config.StateDir, "services", "*", "spec.json"))
	if err != nil {
		return err
	}
	var finding sync.WaitGroup
	limit := make(chan struct{}, 16)
	for _, path := range paths {
		r, err := readRecord(path)
		if err != nil {
			d.log.Error("load service", "error", err)
			continue
		}
		u := d.addUnit(r)
		finding.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			u.complain("find", u.try(func() error { return u.find(ctx) }))
		})
	}
	finding.Wait()
	d.sweepNetworks()
	if err := d.supplies.Sweep(func(id host.ContainerID) bool { return d.unit(id) != nil }); err != nil {
		d.log.Error("sweep", "error", err)
	}
	return d.writeHosts()
}

// sweep removes what a killed daemon was removing, and directories that never
// became containers.
func (d *Daemon) sweep() error {
	gone, err := filepath.Glob(filepath.Join(d.config.removingDir(), "*"))
	if err != nil {
		return err
	}
	for _, dir := range gone {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old container: %w", err)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(d.config.StateDir, "services", "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if _, err := os.Lstat(recordPath(dir)); !os.IsNotExist(err) {
			continue
		}
		if err := d.config.discard(dir); err != nil {
			return fmt.Errorf("remove container without record: %w", err)
		}
	}
	if err := d.config.sweepReady(); err != nil {
		return fmt.Errorf("remove unfinished checkpoint: %w", err)
	}
	for _, pattern := range []string{
		filepath.Join(d.config.StateDir, "build-*"), filepath.Join(d.config.StateDir, "volumes", ".new-*"), filepath.Join(d.config.RunDir, "torpor-runtime-*"),
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.RemoveAll(name); err != nil {
				return fmt.Errorf("remove leftover: %w", err)
			}
		}
	}
	return nil
}

// sweepNetworks removes networks that no container is on: a killed daemon was
// removing or making them.
func (d *Daemon) sweepNetworks() {
	used := map[string]bool{}
	for _, u := range d.all() {
		for _, n := range u.seen().Networks {
			used[n.Name] = true
		}
	}
	for _, name := range d.supplies.Networks() {
		if used[name] {
			continue
		}
		if err := d.supplies.RemoveNetwork(name); err != nil {
			d.log.Error("remove network", "network", name, "error", err)
		}
	}
}

// find takes over the container from an earlier daemon, or from before the
// machine was restarted.
func (u *unit) find(ctx context.Context) error {
	if u.record.Spare { // made anew with the next start of the service
		u.found(host.Created, "", u.record.Created)
		return u.daemon.containers.Clear(ctx, u.record)
	}
	var err error
	if u.init, err = u.daemon.containers.Find(ctx, u.record); err != nil {
		u.found(host.Failed, err.Error(), time.Now())
		return err
	}
	if u.init == 0 {
		return u.findEnded(ctx)
	}
	u.found(host.Awake, "", u.record.Started)
	if err := u.daemon.containers.Adopt(ctx, u.record, u.init); err != nil {
		return err
	}
	if !u.record.WantRunning { // the daemon was killed while it stopped this
		go u.do(func() { u.complain("stop", u.stop(ctx, StopOptions{})) })
		return nil
	}
	if u.record.Starting {
		u.record.Starting, u.record.Started = false, time.Now()
		u.complain("save", u.save())
	}
	if u.record.startsReady() { // a killed daemon made its checkpoint: the next start will
		u.complain("open gate", u.daemon.containers.Open(u.record))
	}
	u.beginHealth(u.record.Health)
	u.missedExit(ctx)
	return nil
}

// findEnded deals with a container that does not run. Policies that start it
// again after an exit start it again after the machine, too.
func (u *unit) findEnded(ctx context.Context) error {
	r := u.record
	if err := u.daemon.containers.Clear(ctx, r); err != nil {
		u.found(host.Failed, err.Error(), time.Now())
		return err
	}
	unfinished := r.Starting && r.WantRunning
	r.Starting = false
	u.setHealth(healthNone)
	switch {
	case r.Started.IsZero():
		u.found(host.Created, "", r.Created)
	case r.WantRunning:
		r.ExitCode = exitUnknown
		u.found(host.Exited, "it ended with the machine", time.Now())
	default:
		u.found(host.Exited, "", r.Started)
	}
	if unfinished || u.restarts(1) {
		go u.do(func() {
			if err := u.start(ctx); err != nil {
				u.complain("start", err)
				u.afterFailedStart()
			}
		})
		return u.save()
	}
	r.WantRunning = false
	return u.save()
}
