package daemon

import (
	"context"
	"fmt"
	"time"

	"torpor/host"
	"torpor/keeper"
)

// fakeReady is a world's ready checkpoints.
type fakeReady struct {
	made    map[host.ServiceName]bool
	spoiled error         // what restoring returns
	waiting int           // how often a service says that it is not ready yet
	refused error         // what making returns
	cold    time.Duration // how long a cold start took
}

func (w *world) MakeFromReady(ctx context.Context, r *Record) (int, error) {
	w.mu.Lock()
	w.callLocked("restore %s", r.ID)
	made, err := w.ready.made[r.Spec.Name], w.ready.spoiled
	cold := w.ready.cold
	w.mu.Unlock()
	switch {
	case !made:
		return 0, fmt.Errorf("read ready checkpoint: %w", host.ErrNotFound)
	case err != nil:
		return 0, err
	case r.prefersCold(cold):
		return 0, errColdIsFaster
	}
	return w.Make(ctx, r)
}

func (w *world) MakeSpare(ctx context.Context, r *Record) (int, error) {
	if err := w.HasReady(r); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("spare %s", r.ID)
	w.pids += 2
	w.containers[r.ID] = &fake{init: w.pids, state: host.Awake, exited: true}
	return w.pids, nil
}

func (w *world) FillSpare(_ context.Context, r *Record) error {
	if err := w.HasReady(r); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("fill %s", r.ID)
	f := w.containers[r.ID]
	f.pid, f.exited = f.init+1, false
	return nil
}

func (w *world) HasReady(r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ready.made[r.Spec.Name] {
		return host.ErrNotFound
	}
	return w.ready.spoiled
}

func (w *world) MakeReady(_ context.Context, r *Record, o ReadyOptions) (keeper.ReadyReport, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ready.waiting > 0 {
		w.ready.waiting--
		return keeper.ReadyReport{Waiting: "not yet"}, nil
	}
	if o.Look {
		return keeper.ReadyReport{}, nil
	}
	w.callLocked("checkpoint %s", r.ID)
	if w.ready.refused != nil {
		return keeper.ReadyReport{}, w.ready.refused
	}
	w.ready.made[r.Spec.Name], w.ready.spoiled, w.ready.cold = true, nil, o.ColdStart
	return keeper.ReadyReport{WrittenBytes: 4096}, nil
}

func (w *world) Open(r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("open %s", r.ID)
	return nil
}

func (w *world) Request(_ context.Context, r *Record, port uint16, path string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callLocked("request %d%s of %s", port, path, r.ID)
	return nil
}
