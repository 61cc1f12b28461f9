package daemon

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"torpor/container"
	"torpor/host"
)

// health is what the healthcheck says.
type health string

const (
	healthNone      health = ""
	healthStarting  health = "starting"
	healthHealthy   health = "healthy"
	healthUnhealthy health = "unhealthy"
)

// Defaults of the compose specification.
const (
	healthInterval = 30 * time.Second
	healthTimeout  = 30 * time.Second
	healthRetries  = 3
)

// healthChecker runs a service's healthcheck in a goroutine of its own. While
// the service sleeps nothing is run: its health is what it was.
type healthChecker struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func startHealth(u *unit, check host.Healthcheck) *healthChecker {
	if check.Interval == 0 {
		check.Interval = healthInterval
	}
	if check.Timeout == 0 {
		check.Timeout = healthTimeout
	}
	if check.Retries == 0 {
		check.Retries = healthRetries
	}
	if check.StartInterval == 0 {
		check.StartInterval = min(check.Interval, 5*time.Second)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &healthChecker{cancel: cancel}
	h.done.Go(func() { h.run(ctx, u, check) })
	return h
}

// stop ends the checks; a nil checker has none.
func (h *healthChecker) stop() {
	if h == nil {
		return
	}
	h.cancel()
	h.done.Wait()
}

func (h *healthChecker) run(ctx context.Context, u *unit, check host.Healthcheck) {
	begun, failures := time.Now(), 0
	for ctx.Err() == nil {
		_, _, now := u.snapshot()
		starting := now == healthStarting && time.Since(begun) < check.StartPeriod
		interval := check.Interval
		if now == healthStarting {
			interval = check.StartInterval
		}
		sleepContext(ctx, interval)
		if ctx.Err() != nil || u.sleeping(ctx) {
			continue
		}
		err := u.checkOnce(ctx, check)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			failures = 0
			u.setHealth(healthHealthy)
		case !starting:
			if failures++; failures >= check.Retries {
				u.setHealth(healthUnhealthy)
			}
		}
	}
}

// sleeping reports whether a check would wake the service.
func (u *unit) sleeping(ctx context.Context) bool {
	status, err := u.keeperStatus(ctx)
	return err != nil || status.State != host.Awake
}

// checkOnce runs the check's command in the container.
func (u *unit) checkOnce(ctx context.Context, check host.Healthcheck) error {
	args := check.Test[1:]
	switch check.Test[0] {
	case "CMD-SHELL":
		args = []string{"/bin/sh", "-c", strings.Join(args, " ")}
	case "CMD":
	default:
		return fmt.Errorf("run healthcheck: unknown kind %q: %w", check.Test[0], host.ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, check.Timeout)
	defer cancel()
	command := u.daemon.runtime.ExecArgs(u.id, container.ExecSpec{Args: args})
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.WaitDelay = time.Second
	return cmd.Run()
}

// setHealth notes the health and tells of a change.
func (u *unit) setHealth(h health) {
	u.mu.Lock()
	was := u.healthy
	u.healthy = h
	u.wakeWaitersLocked()
	u.mu.Unlock()
	if was != h && h != healthNone {
		u.event(host.EventHealth, string(h), nil)
	}
}
