package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"torpor/keeper"
	"torpor/kernel/proc"
)

// CloneResult are the figures of instances of one ready checkpoint.
type CloneResult struct {
	Name        string                   `json:"name"`
	Clones      int                      `json:"clones"`
	Restore     Summary                  `json:"restore"`      // of each
	Arm         Summary                  `json:"arm"`          // the part of it that makes open files and the stub
	Running     Summary                  `json:"running"`      // the rest: script and registers
	Response    Summary                  `json:"response"`     // first request of each, when all run
	ImageBytes  Bytes                    `json:"image_bytes"`  // of the checkpoint, shared by all
	MemoryBytes Bytes                    `json:"memory_bytes"` // of the machine, an idle clone
	PrivateIdle Bytes                    `json:"private_idle_bytes"`
	PrivateUsed Bytes                    `json:"private_used_bytes"` // after its first request
	All         time.Duration            `json:"all_ns"`             // all of them, one after the other, containers too
	Phases      map[string]time.Duration `json:"phases_ns"`
}

// Clones makes many instances of a python program with a heap.
func Clones(ctx context.Context, o ReadyOptions, clones int) (result *CloneResult, err error) {
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p := &programs(o.Self, o.Program, readyHeapMB)[0]
	run := &readyRun{program: p, dir: dir, own: dir, healthy: o.Healthcheck}
	if run.args, err = p.args(wakePort, dir); err != nil {
		return nil, err
	}
	var stop func()
	if run.client, stop, err = startKeeper(ctx, o.Keeper, dir); err != nil {
		return nil, err
	}
	defer stop()
	var made ReadyResult
	if _, err := run.cold(ctx, true, &made); err != nil {
		return nil, err
	}
	o.Progress(fmt.Sprintf("%s: %d clones", p.name, clones))
	result = &CloneResult{Name: p.name, Clones: clones, ImageBytes: made.WrittenBytes, Phases: map[string]time.Duration{}}
	return result, run.clones(ctx, result)
}

func (r *readyRun) clones(ctx context.Context, result *CloneResult) (err error) {
	var all []*instance
	defer func() {
		for _, i := range all {
			err = errors.Join(err, r.end(ctx, i))
		}
	}()
	before, err := memoryAvailable()
	if err != nil {
		return err
	}
	var restore, arm, running, response Sample
	begun := time.Now()
	for range result.Clones {
		i, err := r.start(ctx, nil)
		if err != nil {
			return err
		}
		all = append(all, i)
		report, err := r.restore(ctx, i)
		if err != nil {
			return err
		}
		restore, arm = append(restore, report.Duration), append(arm, report.Phases["arm"])
		running = append(running, ran(report))
		for name, d := range report.Phases {
			result.Phases[name] += d / time.Duration(result.Clones)
		}
	}
	result.All = time.Since(begun)
	after, err := memoryAvailable()
	if err != nil {
		return err
	}
	result.MemoryBytes = Bytes((before - after) / int64(result.Clones))
	if result.PrivateIdle, err = private(all); err != nil {
		return err
	}
	for _, i := range all {
		begun := time.Now()
		if err := r.answered(i); err != nil {
			return err
		}
		response = append(response, time.Since(begun))
	}
	result.Restore, result.Arm, result.Running, result.Response = restore.Summary(), arm.Summary(), running.Summary(), response.Summary()
	result.PrivateUsed, err = private(all)
	return err
}

// ran is the part of a restore after its stub was ready.
func ran(r keeper.RestoreReport) time.Duration {
	var sum time.Duration
	for name, d := range r.Phases {
		if name != "arm" && name != "read" {
			sum += d
		}
	}
	return sum
}

// memoryAvailable is MemAvailable of the machine.
func memoryAvailable() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10, nil
		}
	}
	return 0, errors.New("read memory: /proc/meminfo has no MemAvailable")
}

// private is the memory that belongs to an instance alone, on average.
func private(all []*instance) (Bytes, error) {
	var sum int64
	for _, i := range all {
		pids, err := proc.Tree(i.PID)
		if err != nil {
			return 0, err
		}
		for _, pid := range pids {
			b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "smaps_rollup"))
			if err != nil {
				return 0, err
			}
			for line := range strings.Lines(string(b)) {
				var kb int64
				if n, _ := fmt.Sscanf(line, "Private_Dirty: %d kB", &kb); n == 1 {
					sum += kb << 10
				}
			}
		}
	}
	return Bytes(sum / int64(max(len(all), 1))), nil
}
