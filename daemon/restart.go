package daemon

import (
	"context"
	"fmt"
	"time"

	"torpor/host"
	"torpor/keeper"
)

// noticeExit looks whether the application has ended, and acts on it. What the
// keeper says of the present container counts, not the event that made us look:
// that may be about an earlier one.
func (u *unit) noticeExit(ctx context.Context) {
	if u.init == 0 {
		return
	}
	if status, err := u.keeperStatus(ctx); err == nil && status.Exited {
		u.exited(ctx, status)
	}
}

// missedExit is noticeExit for a container that was found: if its application
// is gone and nobody knows how, a keeper died with that knowledge.
func (u *unit) missedExit(ctx context.Context) {
	for deadline := time.Now().Add(exitNews); ; sleepContext(ctx, stopPoll) {
		status, err := u.keeperStatus(ctx)
		switch {
		case err != nil || ctx.Err() != nil:
			u.complain("look for exit", err)
			return
		case status.Exited:
			u.exited(ctx, status)
			return
		case status.State != host.Awake || status.MainPID != 0:
			return
		case time.Now().After(deadline):
			u.exited(ctx, keeper.Status{ExitCode: exitUnknown, Reason: "it ended unseen"})
			return
		}
	}
}

// exitNews is how long the news of an exit may take from init to the keeper.
const exitNews = 2 * time.Second

// exitUnknown is the exit code of an application whose end nobody saw.
const exitUnknown = 255

// exited clears the container and starts it again if its policy says so.
func (u *unit) exited(ctx context.Context, status keeper.Status) {
	u.endHealth()
	u.endReady()
	u.setHealth(healthNone)
	u.complain("clear", u.daemon.containers.Clear(ctx, u.record))
	u.init = 0
	if status.ExitCode == keeper.ColdExitCode {
		u.become(host.Exited, status.Reason)
		u.startAgain(0)
		return
	}
	u.record.ExitCode = status.ExitCode
	if time.Since(u.record.Started) > restartReset {
		u.record.Restarts = 0
	}
	again := u.restarts(status.ExitCode)
	if !again {
		u.record.WantRunning = false
	}
	u.complain("save", u.save())
	u.become(host.Exited, status.Reason)
	if again {
		u.restart()
	}
}

// Back-off of restarts: doubled at each, reset by a long enough life.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = time.Minute
	restartReset = 10 * time.Second
)

// restarts says whether the policy starts the service again after an exit.
func (u *unit) restarts(code int) bool {
	policy := u.record.Spec.Restart
	switch policy.Mode {
	case host.RestartAlways, host.RestartUnlessStopped:
	case host.RestartOnFailure:
		if code == 0 {
			return false
		}
	default:
		return false
	}
	return u.record.WantRunning && (policy.MaxRetries == 0 || u.record.Restarts < policy.MaxRetries)
}

// restart starts the service again after the back-off.
func (u *unit) restart() {
	delay := u.record.Spec.Restart.Delay
	if delay == 0 {
		delay = min(restartFirst<<min(u.record.Restarts, 16), restartMost)
	}
	u.record.Restarts++
	u.complain("save", u.save())
	u.startAgain(delay)
}

// startAgain starts the service after a delay, unless it was stopped or
// started by then.
func (u *unit) startAgain(delay time.Duration) {
	u.event(host.EventRestart, fmt.Sprintf("in %s", delay), nil)
	u.timer = time.AfterFunc(delay, func() {
		u.do(func() {
			if !u.record.WantRunning || u.init != 0 {
				return
			}
			if err := u.start(context.Background()); err != nil {
				u.daemon.log.Error("restart", "container", u.id, "error", err)
				u.afterFailedStart()
			}
		})
	})
}

// afterFailedStart tries again later, if the policy wants the service to run.
func (u *unit) afterFailedStart() {
	if u.restarts(1) {
		u.restart()
		return
	}
	u.record.WantRunning = false
	u.complain("save", u.save())
}

func (u *unit) cancelRestart() {
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
}
