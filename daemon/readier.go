package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"torpor/host"
)

// readier makes the ready checkpoint of a service that started cold: it waits
// until the service is ready, tells it, has it checkpointed in a quiet moment,
// and opens its gate. It runs once a start, in a goroutine of its own.
type readier struct {
	unit   *unit
	record Record // as it was at the start
	begun  time.Time
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// beginReady begins to make the checkpoint, if the service wants one.
func (u *unit) beginReady(begun time.Time) {
	if !u.record.startsReady() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &readier{unit: u, record: *u.record, begun: begun, cancel: cancel}
	u.ready = r
	r.done.Go(func() { r.run(ctx) })
}

// endReady ends it; the container is about to go.
func (u *unit) endReady() {
	if u.ready != nil {
		u.ready.cancel()
		u.ready.done.Wait()
		u.ready = nil
	}
}

// Pauses between looks at a service that is not ready, or not quiet, yet; how
// long one that is ready may take to be quiet, and how long a start may take,
// before the gate is opened without a checkpoint.
const (
	readyFirst = 10 * time.Millisecond
	readyMost  = 250 * time.Millisecond
	quietLimit = 20 * time.Second
	readyLimit = 30 * time.Minute
)

func (r *readier) run(ctx context.Context) {
	cold, err := r.checkpoint(ctx)
	if ctx.Err() != nil {
		return // the container goes
	}
	u := r.unit
	u.complain("open gate", u.daemon.containers.Open(&r.record))
	if err != nil {
		u.event(host.EventRefuse, "no ready checkpoint: "+strings.TrimPrefix(err.Error(), "refused: "), nil)
	}
	if cold > 0 {
		go u.do(func() { // not from this goroutine, which the unit's waits for
			u.record.ColdStart = cold
			u.complain("save", u.save())
		})
	}
}

// checkpoint returns how long the service took to become ready.
func (r *readier) checkpoint(ctx context.Context) (time.Duration, error) {
	if err := r.repeat(ctx, readyLimit, ReadyOptions{Look: true}); err != nil {
		return 0, err
	}
	cold := time.Since(r.begun)
	r.unit.event(host.EventReady, "", map[string]string{"duration_ms": fmt.Sprint(cold.Milliseconds())})
	if r.current() {
		return cold, nil
	}
	t := &r.record.Spec.Torpor
	if err := r.unit.runHook(ctx, &r.record, t.BeforeCheckpoint); err != nil {
		return cold, fmt.Errorf("before_checkpoint: %w", err)
	}
	err := r.repeat(ctx, quietLimit, ReadyOptions{ColdStart: cold})
	if hookErr := r.unit.runHook(ctx, &r.record, t.AfterRestore); hookErr != nil {
		err = errors.Join(err, fmt.Errorf("after_restore: %w", hookErr))
	}
	return cold, err
}

// current reports whether the start was cold by choice: there is a checkpoint,
// and it is good.
func (r *readier) current() bool { return r.record.ColdChoices > 0 }

// repeat asks for the checkpoint until it is made, or refused, or the limit has
// passed.
func (r *readier) repeat(ctx context.Context, limit time.Duration, o ReadyOptions) error {
	deadline := time.Now().Add(limit)
	for wait := readyFirst; ; wait = min(2*wait, readyMost) {
		waiting, err := r.try(ctx, o)
		if err != nil || waiting == "" {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s", limit, waiting)
		}
		if sleepContext(ctx, wait); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// try asks once. Healthchecks run in between, not meanwhile.
func (r *readier) try(ctx context.Context, o ReadyOptions) (waiting string, err error) {
	if r.record.healthcheck() != nil {
		if _, _, healthy := r.unit.snapshot(); healthy != healthHealthy {
			return "it is not healthy", nil
		}
		o.Healthy = true
	}
	r.unit.probing.Lock()
	defer r.unit.probing.Unlock()
	report, err := r.unit.daemon.containers.MakeReady(ctx, &r.record, o)
	if err != nil || report.Waiting != "" || o.Look {
		return report.Waiting, err
	}
	var notes []string
	for _, peer := range report.Reset {
		notes = append(notes, "restores lose the connection with "+peer)
	}
	for _, words := range report.Shared {
		notes = append(notes, "instances share "+words)
	}
	r.unit.daemon.refill(r.unit.project, r.unit.service)
	r.unit.event(host.EventCheckpoint, strings.Join(notes, "; "), map[string]string{"written_kb": fmt.Sprint(report.WrittenBytes >> 10), "paused_ms": fmt.Sprint(report.Paused.Milliseconds())})
	return "", nil
}

// makeFromReady restores the service and lets people in when it knows.
func (u *unit) makeFromReady(ctx context.Context) (int, error) {
	init, err := u.daemon.containers.MakeFromReady(ctx, u.record)
	if err != nil {
		return 0, err
	}
	u.daemon.refill(u.project, u.service)
	return init, u.afterRestore(ctx)
}

// afterRestore tells the service that it was restored, and then lets people in.
func (u *unit) afterRestore(ctx context.Context) error {
	hook := u.record.Spec.Torpor.AfterRestore
	if hook == nil {
		return nil
	}
	if err := u.runHook(ctx, u.record, hook); err != nil {
		return &unusable{reason: "after_restore: " + err.Error()}
	}
	return u.daemon.containers.Open(u.record)
}

// explainCold says why a service starts cold that could have been restored.
func (u *unit) explainCold(err error) {
	var why *unusable
	switch {
	case errors.Is(err, host.ErrNotFound):
		u.record.ColdChoices = 0
	case errors.Is(err, errColdIsFaster):
		u.record.ColdChoices++
	case errors.As(err, &why):
		u.record.ColdChoices, u.record.ReadyStart = 0, 0
		u.event(host.EventCold, why.reason, nil)
		if why.outdone {
			u.outdone()
		}
	default:
		u.record.ColdChoices = 0
		u.event(host.EventCold, err.Error(), nil)
	}
}

// outdoneMost is how many checkpoints in a row may be of no use because the
// service's files have changed, as those of a database do in every run, before
// none is made any more.
const outdoneMost = 3

// outdone counts one, and says so when it was the last.
func (u *unit) outdone() {
	if u.record.Outdone++; u.record.Outdone == outdoneMost {
		u.event(host.EventRefuse, fmt.Sprintf("no more ready checkpoints: %d in a row were of no use, because its files had changed (make the container anew, or set checkpoint: never)", outdoneMost), nil)
	}
}
