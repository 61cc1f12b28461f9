package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"torpor/host"
	"torpor/kernel/mount"
)

// newStarts bounds how many containers are made at once. More would only be in
// each other's way: each is work for the runtime and the kernel.
func newStarts() chan struct{} { return make(chan struct{}, max(4, 2*runtime.NumCPU())) }

// start makes the container and starts the application. On an error nothing of
// it is left but its record. It is not interrupted: half a start helps nobody.
func (u *unit) start(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	u.cancelRestart()
	u.become(host.Starting, "")
	u.record.Starting = true
	restored := false
	err := u.save()
	u.daemon.starts <- struct{}{}
	begun := time.Now()
	if err == nil {
		restored, err = u.make(ctx)
	}
	<-u.daemon.starts
	u.record.Starting = false
	if err == nil {
		u.record.Started, u.record.ExitCode = time.Now(), 0
		err = u.save()
	}
	if err != nil {
		u.init = 0
		err = errors.Join(err, u.daemon.containers.Clear(ctx, u.record), u.save())
		u.become(host.Failed, err.Error())
		u.event(host.EventError, "start: "+err.Error(), nil)
		return err
	}
	if restored {
		u.restored(begun)
	} else {
		u.setHealth(healthNone)
		u.event(host.EventStart, "", nil)
		u.beginHealth(healthStarting)
		u.beginReady(begun)
	}
	u.become(host.Awake, "")
	return u.save()
}

// restored notes a start from the ready checkpoint.
func (u *unit) restored(begun time.Time) {
	u.record.ReadyStart, u.record.ColdChoices, u.record.Outdone = time.Since(begun), 0, 0
	took := fmt.Sprintf("%.1f", float64(u.record.ReadyStart.Microseconds())/1000)
	u.setHealth(healthNone)
	u.event(host.EventStart, "from its ready checkpoint", map[string]string{"duration_ms": took})
	u.beginHealth(healthHealthy)
}

// make makes the container: from the service's ready checkpoint, if it wants
// that and there is one that fits, else cold.
func (u *unit) make(ctx context.Context) (restored bool, err error) {
	parts := u.daemon.containers
	if u.record.startsReady() {
		if u.init, err = u.makeFromReady(ctx); err == nil {
			return true, nil
		}
		u.explainCold(err)
	}
	u.init, err = parts.Make(ctx, u.record)
	return false, err
}

// run is start for somebody who wants the service to run from now on.
func (u *unit) wantStart(ctx context.Context) error {
	u.record.WantRunning, u.record.Restarts = true, 0
	if u.record.Spare {
		return u.fillSpare(ctx)
	}
	if u.init != 0 {
		return u.save()
	}
	err := u.start(ctx)
	if err != nil && !u.restarts(1) {
		u.record.WantRunning = false
		err = errors.Join(err, u.save())
	}
	return err
}

// StopOptions say how a service is stopped. The zero value stops it as its
// spec says.
type StopOptions struct {
	// Timeout is the time it has to end by itself, instead of its own grace.
	// 0 kills it at once, without waking it if it sleeps.
	Timeout *time.Duration `json:"timeout_ns,omitempty"`
}

// stop ends the service as it wants to be ended: a sleeping one is woken to be
// told. What does not end in its grace is killed.
func (u *unit) stop(ctx context.Context, o StopOptions) error {
	ctx = context.WithoutCancel(ctx)
	if u.record.Spare {
		return u.dropSpare(ctx)
	}
	u.cancelRestart()
	u.record.WantRunning = false
	if err := u.save(); err != nil {
		return err
	}
	if u.init == 0 {
		if state, _, _ := u.snapshot(); state == host.Failed {
			u.become(host.Exited, "stopped")
		}
		return nil
	}
	u.endHealth()
	u.endReady()
	u.become(host.Stopping, "")
	reason := "stopped"
	if err := u.terminate(ctx, o); err != nil {
		u.record.ExitCode = exitKilled
		reason = "killed: " + err.Error()
	}
	if err := u.daemon.containers.Clear(ctx, u.record); err != nil {
		u.become(host.Failed, err.Error())
		return err
	}
	u.init = 0
	u.setHealth(healthNone)
	err := u.save()
	u.become(host.Exited, reason)
	u.event(host.EventStop, reason, map[string]string{"exit_code": fmt.Sprint(u.record.ExitCode)})
	return err
}

// exitKilled is the exit code of what was ended by SIGKILL.
const exitKilled = 128 + int(syscall.SIGKILL)

// wakeLimit bounds the wake of a service that is to be stopped.
const wakeLimit = 30 * time.Second

// terminate wakes the service, signals it and waits for its end. An error says
// why it has to be killed.
func (u *unit) terminate(ctx context.Context, o StopOptions) error {
	grace := u.record.grace()
	if o.Timeout != nil {
		grace = *o.Timeout
	}
	if grace == 0 {
		return errors.New("no time to end by itself was given")
	}
	client, err := u.daemon.keeper.get(ctx)
	if err != nil {
		return err
	}
	waking, cancel := context.WithTimeout(ctx, wakeLimit)
	defer cancel()
	if _, err := client.Wake(waking, u.id, "stop"); err != nil {
		return fmt.Errorf("it did not wake to be told: %w", err)
	}
	status, err := u.keeperStatus(ctx)
	if err != nil {
		return err
	}
	if !status.Exited && status.MainPID != 0 {
		err := u.daemon.containers.Signal(status.MainPID, u.record.stopSignal())
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); {
		status, err := u.keeperStatus(ctx)
		if err != nil {
			return err
		}
		if status.Exited {
			u.record.ExitCode = status.ExitCode
			return nil
		}
		sleepContext(ctx, stopPoll)
	}
	return fmt.Errorf("it did not end within %s of %s", grace, u.record.stopSignal())
}

// stopPoll is how often the end of a stopped service is looked for.
const stopPoll = 10 * time.Millisecond

// remove takes away all there is of a stopped container. Its directory is
// renamed first, so that half of it is never taken for a container.
func (u *unit) remove() error {
	if err := u.daemon.containers.Release(u.record); err != nil {
		return fmt.Errorf("remove %s: %w", u.id, err)
	}
	if err := u.daemon.config.discard(u.dir()); err != nil {
		return fmt.Errorf("remove %s: %w", u.id, err)
	}
	u.event(host.EventRemove, "", nil)
	return nil
}

// discard removes a directory of a container, at once or at the next start.
func (c *Config) discard(dir string) error {
	rootfs := filepath.Join(dir, "bundle", "rootfs")
	if mounted, err := mount.Mounted(rootfs); err != nil || mounted {
		return errors.Join(err, fmt.Errorf("remove %s: %s is still mounted", dir, rootfs))
	}
	gone, err := os.MkdirTemp(c.removingDir(), "")
	if err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(gone, filepath.Base(dir))); err != nil {
		return errors.Join(err, os.Remove(gone))
	}
	return os.RemoveAll(gone)
}
