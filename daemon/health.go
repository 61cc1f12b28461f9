package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"torpor/container"
	"torpor/host"
)

// health is what the healthcheck says.
type health string

const (
	healthNone      health = "" // there is no healthcheck, or nothing to check
	healthStarting  health = "starting"
	healthHealthy   health = "healthy"
	healthUnhealthy health = "unhealthy"
)

// Defaults of the compose specification.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthRetries       = 3
	healthStartInterval = 5 * time.Second
)

// firstCheck is how long after a start a service is checked first, unless its
// start_interval says; the time doubles from there.
const firstCheck = 500 * time.Millisecond

// healthChecker runs a service's healthcheck in a goroutine of its own. While
// the service sleeps nothing is run: its health is what it was. Checks do not
// count as activity.
type healthChecker struct {
	unit   *unit
	check  host.Healthcheck
	cancel context.CancelFunc
	done   sync.WaitGroup

	begun    time.Time
	counted  time.Time // when a failure was last counted
	failures int
	ramp     time.Duration
}

// beginHealth starts the service's checks, if it has any.
func (u *unit) beginHealth(now health) {
	check := u.record.healthcheck()
	if check == nil {
		return
	}
	if now == healthNone {
		now = healthStarting
	}
	u.setHealth(now)
	ctx, cancel := context.WithCancel(context.Background())
	h := &healthChecker{unit: u, check: *check, cancel: cancel, begun: time.Now(), counted: time.Now(), ramp: firstCheck}
	for field, standard := range map[*time.Duration]time.Duration{&h.check.Interval: healthInterval, &h.check.Timeout: healthTimeout} {
		if *field == 0 {
			*field = standard
		}
	}
	if h.check.Retries == 0 {
		h.check.Retries = healthRetries
	}
	u.health = h
	h.done.Go(func() { h.run(ctx) })
}

// endHealth ends the checks.
func (u *unit) endHealth() {
	if u.health != nil {
		u.health.cancel()
		u.health.done.Wait()
		u.health = nil
	}
}

func (h *healthChecker) run(ctx context.Context) {
	for {
		_, _, now := h.unit.snapshot()
		sleepContext(ctx, h.wait(now))
		if ctx.Err() != nil {
			return
		}
		ran, err := h.unit.probe(ctx, h.check)
		if ran && ctx.Err() == nil {
			h.judge(now, err)
		}
	}
}

// wait is the time until the next check. A starting service is looked at more
// often, so that those who wait for it need not wait for long.
func (h *healthChecker) wait(now health) time.Duration {
	if now != healthStarting {
		return h.check.Interval
	}
	if h.check.StartInterval > 0 {
		return h.check.StartInterval
	}
	wait := min(h.ramp, h.check.Interval)
	h.ramp = min(2*h.ramp, healthStartInterval)
	return wait
}

// judge counts failures as if checks came at the interval: the extra ones of a
// starting service can only make it healthy.
func (h *healthChecker) judge(now health, err error) {
	if err == nil {
		h.failures = 0
		h.unit.setHealth(healthHealthy)
		if now == healthStarting {
			h.unit.event(host.EventReady, "its healthcheck passed", nil)
		}
		return
	}
	if now == healthStarting && (time.Since(h.begun) < h.check.StartPeriod || time.Since(h.counted) < h.check.Interval) {
		return
	}
	h.counted = time.Now()
	if h.failures++; h.failures >= h.check.Retries {
		h.unit.setHealth(healthUnhealthy)
	}
}

// probe runs the check's command in the container, unless the service sleeps.
// It says whether it ran.
func (u *unit) probe(ctx context.Context, check host.Healthcheck) (bool, error) {
	args := check.Test[1:]
	switch check.Test[0] {
	case "CMD-SHELL":
		args = []string{"/bin/sh", "-c", strings.Join(args, " ")}
	case "CMD":
	default:
		return true, fmt.Errorf("run healthcheck: unknown kind %q: %w", check.Test[0], host.ErrInvalid)
	}
	u.probing.Lock()
	defer u.probing.Unlock()
	client, err := u.daemon.keeper.get(ctx)
	if err != nil {
		return false, err
	}
	ok, err := client.BeginProbe(ctx, u.id, check.Timeout+time.Second)
	if err != nil || !ok {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, check.Timeout)
	defer cancel()
	err = u.daemon.containers.Run(limited, u.id, container.ExecSpec{Args: args})
	return true, errors.Join(err, client.EndProbe(context.WithoutCancel(ctx), u.id))
}

// setHealth notes the health and tells of a change.
func (u *unit) setHealth(h health) {
	u.mu.Lock()
	was := u.healthy
	u.healthy = h
	u.wakeWaitersLocked()
	u.mu.Unlock()
	if was == h || h == healthNone {
		return
	}
	u.event(host.EventHealth, string(h), nil)
	if h != healthStarting { // not from a checker's goroutine, which the unit's waits for
		go u.do(func() { u.complain("save", u.save()) })
	}
}
