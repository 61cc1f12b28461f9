package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// VolumeIOOptions say how btrfs and log volumes are compared.
type VolumeIOOptions struct {
	DiskMB  int // each of six
	FileMB  int // what is read and written
	Seconds int // each measurement
	Rounds  int
	Kinds   []string // ways to use a volume: of ext4, device, nbd
	Engine  string   // of fio, for all but NBD
	Only    []string // workloads whose names begin so; all if it is empty
}

// VolumeIOResult are the figures: medians over all rounds, in which both sides
// took turns.
type VolumeIOResult struct {
	Stacks []string      `json:"stacks"`
	Rows   []VolumeIORow `json:"rows"`
	Notes  []string      `json:"notes,omitempty"`
}

// VolumeIORow is one workload.
type VolumeIORow struct {
	Name   string                `json:"name"`
	Unit   string                `json:"unit"`
	Wanted float64               `json:"wanted,omitempty"` // the ratio to btrfs that is the aim
	Stacks map[string]*IOFigures `json:"stacks"`
}

// IOFigures are those of one workload on one stack.
type IOFigures struct {
	Rate       float64       `json:"rate"` // IO or MiB a second
	P50        time.Duration `json:"p50_ns"`
	P99        time.Duration `json:"p99_ns"`
	CPU        time.Duration `json:"cpu_ns"`         // of the whole machine for each IO
	ProcessCPU time.Duration `json:"process_cpu_ns"` // of this process and fio for each IO
	Rates      []float64     `json:"rates"`          // of all rounds

	samples []ioSample
}

type ioSample struct {
	fio fioFigures
	cpu cpuTime
}

// workload is one job of fio.
type workload struct {
	name     string
	args     []string
	big      bool // rates are MiB/s
	degraded bool // two disks are missing
	wanted   float64
}

// workloads are in the order in which they run, after a file was written
// sequentially. Writes that are not synced one by one are synced at the end, as
// a part of the measurement.
var workloads = []workload{
	{name: "4k randread qd32", args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, wanted: 1},
	{name: "4k randread qd1", args: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}, wanted: 1},
	{name: "1M read qd8", args: []string{"--rw=read", "--bs=1m", "--iodepth=8"}, big: true, wanted: 1},
	{name: "4k randwrite qd32", args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32", "--end_fsync=1"}, wanted: 15},
	{name: "4k randwrite qd1 fdatasync", args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fdatasync=1"}, wanted: 2.5},
	{name: "1M read qd8 after random writes", args: []string{"--rw=read", "--bs=1m", "--iodepth=8"}, big: true},
	{name: "1M write qd8", args: []string{"--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1"}, big: true, wanted: 3},
	{name: "4k randread qd32, 2 missing", args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, degraded: true, wanted: 4},
	{name: "4k randread qd1, 2 missing", args: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}, degraded: true, wanted: 4},
	{name: "1M read qd8, 2 missing", args: []string{"--rw=read", "--bs=1m", "--iodepth=8"}, big: true, degraded: true, wanted: 10},
}

// ioRun is the comparison in progress.
type ioRun struct {
	o      *VolumeOptions
	stacks []stack
	rows   []VolumeIORow
	notes  []string
}

func volumeIO(ctx context.Context, o *VolumeOptions, dir string) (result *VolumeIOResult, err error) {
	if _, err := exec.LookPath("fio"); err != nil {
		return nil, fmt.Errorf("%w: install the package fio", err)
	}
	for _, kind := range o.IO.Kinds {
		if !slices.Contains(logKinds, kind) {
			return nil, fmt.Errorf("use a volume as %s: it is none of %s", kind, strings.Join(logKinds, ", "))
		}
	}
	o.Progress(fmt.Sprintf("io: write %d disks of %d MiB", allDisks, o.IO.DiskMB))
	disks, err := newDiskSet(ctx, dir, allDisks, int64(o.IO.DiskMB)<<20)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, disks.close()) }()
	run := newIORun(o, disks, dir)
	for round := range o.IO.Rounds {
		stacks := slices.Clone(run.stacks)
		if round%2 == 1 {
			slices.Reverse(stacks)
		}
		for _, s := range stacks {
			if err := run.measure(ctx, s, round); err != nil {
				return run.result(), fmt.Errorf("%s: %w", s.name(), err)
			}
		}
	}
	return run.result(), nil
}

func newIORun(o *VolumeOptions, disks *diskSet, dir string) *ioRun {
	run := &ioRun{o: o}
	for _, name := range []string{"mkfs.btrfs", "btrfs"} {
		if _, err := exec.LookPath(name); err != nil {
			run.notes = []string{fmt.Sprintf("no figures of btrfs: %v: install the package btrfs-progs", err)}
		}
	}
	at := mountPoint{dir: filepath.Join(dir, "mount")}
	if run.notes == nil {
		run.stacks = append(run.stacks, &btrfsStack{disks: disks, at: at})
	}
	for _, kind := range o.IO.Kinds {
		sizeBytes := int64(o.IO.FileMB) << 20
		if kind == "ext4" {
			sizeBytes += sizeBytes/8 + 256<<20
		}
		run.stacks = append(run.stacks, &logStack{kind: kind, disks: disks, dir: dir, at: at, sizeBytes: sizeBytes})
	}
	for _, w := range append([]workload{{name: "fill", big: true}}, workloads...) {
		unit := "IOPS"
		if w.big {
			unit = "MiB/s"
		}
		run.rows = append(run.rows, VolumeIORow{Name: w.name, Unit: unit, Wanted: w.wanted, Stacks: map[string]*IOFigures{}})
	}
	return run
}

// measure runs all workloads on a stack that is made for it.
func (run *ioRun) measure(ctx context.Context, s stack, round int) (err error) {
	defer func() { err = errors.Join(err, s.teardown()) }()
	run.o.Progress(fmt.Sprintf("io: round %d of %d: %s", round+1, run.o.IO.Rounds, s.name()))
	if err := s.setup(ctx); err != nil {
		return err
	}
	fill := workload{name: "fill", args: []string{"--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1"}}
	if err := run.job(ctx, s, 0, fill, round); err != nil {
		return err
	}
	degraded := false
	for i, w := range workloads {
		if !run.wants(w) {
			continue
		}
		if w.degraded && !degraded {
			if err := s.degrade(ctx); err != nil {
				return fmt.Errorf("take %d disks away: %w", parityDisks, err)
			}
			degraded = true
		}
		w.args = append(slices.Clip(w.args), "--time_based", fmt.Sprintf("--runtime=%d", run.o.IO.Seconds))
		if err := run.job(ctx, s, i+1, w, round); err != nil {
			return err
		}
	}
	return nil
}

func (run *ioRun) wants(w workload) bool {
	return len(run.o.IO.Only) == 0 || slices.ContainsFunc(run.o.IO.Only, func(prefix string) bool {
		return len(w.name) >= len(prefix) && w.name[:len(prefix)] == prefix
	})
}

// job runs one workload and keeps its figures in a row.
func (run *ioRun) job(ctx context.Context, s stack, row int, w workload, round int) error {
	if err := s.settle(); err != nil {
		return err
	}
	args := append([]string{"--ioengine=" + run.o.IO.Engine, fmt.Sprintf("--size=%dm", run.o.IO.FileMB)}, s.where()...)
	args = append(args, s.fit(w.args)...)
	var figures *fioFigures
	begun := readCPU()
	err := run.o.profiled(fmt.Sprintf("%s %s %d", s.name(), w.name, round), func() (err error) {
		figures, err = runFio(ctx, args)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	used := readCPU().since(begun)
	into := run.rows[row].Stacks[s.name()]
	if into == nil {
		into = &IOFigures{}
		run.rows[row].Stacks[s.name()] = into
	}
	into.samples = append(into.samples, ioSample{*figures, used})
	rate := figures.rate
	if run.rows[row].Unit == "MiB/s" {
		rate = figures.mibs
	}
	into.Rates = append(into.Rates, rate)
	run.o.Progress(fmt.Sprintf("    %-32s %9.0f %s", w.name, rate, run.rows[row].Unit))
	return nil
}

func (run *ioRun) result() *VolumeIOResult {
	r := &VolumeIOResult{Notes: run.notes}
	for _, s := range run.stacks {
		r.Stacks = append(r.Stacks, s.name())
	}
	for _, row := range run.rows {
		if len(row.Stacks) == 0 {
			continue
		}
		for _, f := range row.Stacks {
			f.condense()
		}
		r.Rows = append(r.Rows, row)
	}
	return r
}

// condense takes medians.
func (f *IOFigures) condense() {
	f.Rate = median(f.Rates)
	of := func(value func(ioSample) time.Duration) time.Duration {
		var all []time.Duration
		for _, s := range f.samples {
			all = append(all, value(s))
		}
		return median(all)
	}
	each := func(d time.Duration, s ioSample) time.Duration { return d / time.Duration(max(1, s.fio.ios)) }
	f.P50 = of(func(s ioSample) time.Duration { return s.fio.p50 })
	f.P99 = of(func(s ioSample) time.Duration { return s.fio.p99 })
	f.CPU = of(func(s ioSample) time.Duration { return each(s.cpu.machine, s) })
	f.ProcessCPU = of(func(s ioSample) time.Duration { return each(s.cpu.process+s.fio.cpu, s) })
}

// median is the mean of the middle two if there are two; 0 of nothing.
func median[T float64 | time.Duration](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
