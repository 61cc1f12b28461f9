package daemon

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"torpor/container"
	"torpor/host"
	"torpor/kernel/signal"
)

// stop ends the service as it wants to be ended: a sleeping one is woken to be
// told. What does not end in its grace is killed.
func (u *unit) stop(ctx context.Context) error {
	u.record.WantRunning = false
	if u.timer != nil {
		u.timer.Stop()
	}
	if err := u.save(); err != nil {
		return err
	}
	if u.init == 0 {
		return nil
	}
	u.health.stop()
	u.become(host.Stopping, "")
	if err := u.terminate(ctx); err != nil {
		u.daemon.log.Warn("stop", "container", u.id, "error", err)
	}
	if err := u.clear(ctx); err != nil {
		u.become(host.Failed, err.Error())
		return err
	}
	u.become(host.Exited, "stopped")
	u.event(host.EventStop, "", nil)
	return nil
}

// terminate wakes, signals and waits.
func (u *unit) terminate(ctx context.Context) error {
	number, err := signal.Parse(u.record.stopSignal())
	if err != nil {
		return err
	}
	client, err := u.daemon.keeper.get(ctx)
	if err != nil {
		return err
	}
	if _, err := client.Wake(ctx, u.id, "stop"); err != nil {
		return err
	}
	status, err := u.keeperStatus(ctx)
	if err != nil || status.Exited || status.MainPID == 0 {
		return err
	}
	if err := container.Signal(status.MainPID, number); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	deadline := time.Now().Add(u.record.grace())
	for time.Now().Before(deadline) {
		if status, err := u.keeperStatus(ctx); err != nil || status.Exited {
			u.record.ExitCode = status.ExitCode
			return err
		}
		sleepContext(ctx, 10*time.Millisecond)
	}
	return fmt.Errorf("stop %s: it did not end within %s of %s; killed", u.id, u.record.grace(), u.record.stopSignal())
}
