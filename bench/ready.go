package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"torpor/host"
	"torpor/internal/initproc"
	"torpor/keeper"
	"torpor/kernel/inet"
)

// ReadyOptions say which starts are compared.
type ReadyOptions struct {
	WakeOptions
	Self     string   // torpor itself, which is also the Go program
	Programs []string // names; empty: all that are installed
	// Healthcheck asks once before the checkpoint is made, as a healthcheck does:
	// what a program does at its first request only is then done.
	Healthcheck bool
}

// ReadyResult compares the starts of one program. Each is from the start of
// the container's init to the answer to the first request.
type ReadyResult struct {
	Name         string                   `json:"name"`
	Cold         Summary                  `json:"cold"`
	Ready        Summary                  `json:"ready"`         // from the ready checkpoint
	Restore      Summary                  `json:"restore"`       // of that, the keeper's part
	Paused       time.Duration            `json:"paused_ns"`     // for how long the program stood while its checkpoint was made
	WrittenBytes Bytes                    `json:"written_bytes"` // by that
	Phases       map[string]time.Duration `json:"phases_ns"`     // of Restore, mean
	CRIU         *CRIUResult              `json:"criu,omitempty"`
	Problem      string                   `json:"problem,omitempty"` // why there are no figures
}

// readyHeapMB is the heap of the python program.
const readyHeapMB = 200

// Ready compares cold starts, starts from a ready checkpoint, and restores by
// CRIU of several programs.
func Ready(ctx context.Context, o ReadyOptions) ([]ReadyResult, error) {
	var results []ReadyResult
	for _, p := range programs(o.Self, o.Program, readyHeapMB) {
		if !wanted(o.Programs, p.name) {
			continue
		}
		o.Progress(fmt.Sprintf("%s: %d starts of each kind", p.name, o.Cycles))
		r, err := readyCase(ctx, o, &p)
		if err != nil {
			r = &ReadyResult{Problem: err.Error()}
		}
		r.Name = p.name
		results = append(results, *r)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
	}
	return results, nil
}

func wanted(names []string, name string) bool {
	for _, n := range names {
		if n == name || len(n) > 0 && len(name) > len(n) && name[:len(n)] == n {
			return true
		}
	}
	return len(names) == 0
}

// readyRun is one program's case.
type readyRun struct {
	program *program
	client  *keeper.Client
	dir     string // of all
	own     string // the program's own directory
	args    []string
	count   int
	healthy bool // a request comes before the checkpoint
}

func readyCase(ctx context.Context, o ReadyOptions, p *program) (result *ReadyResult, err error) {
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	run := &readyRun{program: p, dir: dir, own: filepath.Join(dir, "own"), healthy: o.Healthcheck}
	if err := os.Mkdir(run.own, 0o755); err != nil {
		return nil, err
	}
	if run.args, err = p.args(wakePort, run.own); err != nil {
		return nil, fmt.Errorf("not installed: %w", err)
	}
	var stop func()
	if run.client, stop, err = startKeeper(ctx, o.Keeper, dir); err != nil {
		return nil, err
	}
	defer stop()
	result = &ReadyResult{Phases: map[string]time.Duration{}}
	if err := run.measure(ctx, o.Cycles, result); err != nil {
		return nil, err
	}
	if o.CRIU != "" {
		result.CRIU = criuStarts(ctx, o, p)
	}
	return result, nil
}

func (r *readyRun) measure(ctx context.Context, cycles int, result *ReadyResult) error {
	if _, err := r.cold(ctx, true, result); err != nil {
		return err
	}
	var cold, ready, restore Sample
	for range cycles {
		took, err := r.cold(ctx, false, result)
		if err != nil {
			return err
		}
		cold = append(cold, took)
		took, report, err := r.ready(ctx)
		if err != nil {
			return err
		}
		ready, restore = append(ready, took), append(restore, report.Duration)
		for name, d := range report.Phases {
			result.Phases[name] += d / time.Duration(cycles)
		}
	}
	result.Cold, result.Ready, result.Restore = cold.Summary(), ready.Summary(), restore.Summary()
	return nil
}

// instance is one container of the program.
type instance struct {
	*initproc.Process
	id  host.ContainerID
	dir string
}

// start starts a container, with or without the application.
func (r *readyRun) start(ctx context.Context, args []string) (*instance, error) {
	r.count++
	i := &instance{id: host.ContainerID(fmt.Sprintf("bench-ready-%d", r.count))}
	i.dir = filepath.Join(r.dir, string(i.id))
	if err := os.Mkdir(i.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if i.Process, err = initproc.Start(i.dir, args...); err != nil {
		return nil, err
	}
	target := keeper.Target{ID: i.id, InitPID: i.PID, RunDir: i.dir, CheckpointDir: filepath.Join(i.dir, "checkpoint"), LogPath: filepath.Join(i.dir, "log")}
	if err := r.client.Adopt(ctx, target); err != nil {
		return nil, errors.Join(err, i.Stop())
	}
	return i, nil
}

// end ends a container.
func (r *readyRun) end(ctx context.Context, i *instance) error {
	return errors.Join(r.client.Forget(ctx, i.id), i.Stop(), os.RemoveAll(i.dir))
}

func (r *readyRun) answered(i *instance) error {
	return i.InNetwork(func() error {
		return r.program.answered(func() (net.Conn, error) { return net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", wakePort)) })
	})
}

// cold starts the program from nothing. If asked, a ready checkpoint is made
// instead of the first request.
func (r *readyRun) cold(ctx context.Context, checkpoint bool, result *ReadyResult) (took time.Duration, err error) {
	begun := time.Now()
	i, err := r.start(ctx, r.args)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.end(ctx, i)) }()
	if checkpoint {
		return 0, r.checkpoint(ctx, i, result)
	}
	err = r.answered(i)
	return time.Since(begun), err
}

func (r *readyRun) checkpointDir() string { return filepath.Join(r.dir, "ready") }
func (r *readyRun) keyPath() string       { return filepath.Join(r.dir, "key") }

func (r *readyRun) checkpoint(ctx context.Context, i *instance, result *ReadyResult) error {
	request := keeper.ReadyRequest{Dir: r.checkpointDir(), KeyPath: r.keyPath(), Ports: []inet.Port{{Protocol: "tcp", Number: wakePort}}}
	if r.healthy {
		if err := r.answered(i); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		report, err := r.client.MakeReady(ctx, i.id, request)
		if err != nil {
			return err
		}
		if report.Waiting == "" {
			result.Paused, result.WrittenBytes = report.Paused, Bytes(report.WrittenBytes)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("make ready checkpoint: %s", report.Waiting)
		}
	}
}

// ready starts the program from its ready checkpoint.
func (r *readyRun) ready(ctx context.Context) (took time.Duration, report keeper.RestoreReport, err error) {
	begun := time.Now()
	i, err := r.start(ctx, nil)
	if err != nil {
		return 0, report, err
	}
	defer func() { err = errors.Join(err, r.end(ctx, i)) }()
	if report, err = r.restore(ctx, i); err != nil {
		return 0, report, err
	}
	err = r.answered(i)
	return time.Since(begun), report, err
}

func (r *readyRun) restore(ctx context.Context, i *instance) (keeper.RestoreReport, error) {
	return r.client.Restore(ctx, i.id, keeper.RestoreRequest{Dir: r.checkpointDir(), KeyPath: r.keyPath()})
}
