package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/bench"
)

func newBenchVolumeCommand(env *environment) *cobra.Command {
	var o bench.VolumeOptions
	var asJSON, apart bool
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Measure log volumes, side by side with btrfs RAID6",
		Long: `Make volumes on six disks, 4 of data and 2 of parity, and measure them. Needs
root, no daemon. --only takes a list of:

io:       fio on six loop devices with direct I/O on files: on a file on btrfs
          (data RAID6, metadata in three copies), and on a volume in a log: a file
          on ext4 on its block device, the block device itself, and its NBD
          server. All take turns on the same loop devices, each round begins
          with empty ones. Then two disks are taken away. The ratio is that of
          file systems, ext4 on the volume to btrfs
cleaning: how many blocks the log writes for each that users write, on disks in
          memory, uniformly at random against the analytic bound, and 90 % of
          writes to 10 % of the blocks against a log with one unsorted stream
memory:   the map's memory for each TB of data, what reads and writes cost as the
          volume grows, and the same with the map's memory bounded
recovery: the time to open a log that crashed

In memory and recovery the disks keep data that repeats in memory, and all else
in sparse files.

CPU is the time that the whole machine was busy, divided by the IOs; in
parentheses that of this process and fio. It includes what else the machine
did: look at the load average.`,
		Example: `  sudo torpor bench volume
  sudo torpor bench volume --only io --seconds 10 --rounds 5
  sudo torpor bench volume --only io --kinds ext4 --workload "4k randwrite"
  sudo torpor bench volume --only cleaning --full 90 --segments 5000
  sudo torpor bench volume --only recovery --recovery-gb 100 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if !apart {
				return runApart(ctx, env)
			}
			o.Progress = func(line string) { fmt.Fprintln(env.stderr, line) }
			waitInParallel()
			result, err := bench.Volume(ctx, o)
			if result == nil {
				return err
			}
			if asJSON {
				if problem := json.NewEncoder(env.stdout).Encode(result); problem != nil {
					return problem
				}
				return err
			}
			if problem := printBenchVolume(env, result); problem != nil {
				return problem
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.Parts, "only", bench.VolumeParts, "what to measure")
	flags.StringVar(&o.Dir, "dir", "/var/tmp", "where the disks' files are written")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.IntVar(&o.IO.DiskMB, "disk-mb", 1024, "io: size of each disk")
	flags.IntVar(&o.IO.FileMB, "file-mb", 1024, "io: how much is read and written")
	flags.IntVar(&o.IO.Seconds, "seconds", 5, "io: seconds of each measurement")
	flags.IntVar(&o.IO.Rounds, "rounds", 3, "io: rounds, of which medians are taken")
	flags.StringSliceVar(&o.IO.Kinds, "kinds", []string{"ext4", "device", "nbd"}, "io: ways to use the volume")
	flags.StringVar(&o.IO.Engine, "engine", "libaio", "io: engine of fio")
	flags.StringArrayVar(&o.IO.Only, "workload", nil, "io: only workloads whose names begin so")
	flags.IntVar(&o.Cleaning.Segments, "segments", 2000, "cleaning: segments of 1 MiB")
	flags.IntSliceVar(&o.Cleaning.Full, "full", []int{70, 80, 90}, "cleaning: per cent of segments that hold data")
	flags.IntVar(&o.Cleaning.Overwrites, "overwrites", 3, "cleaning: how often all is written, after as much to settle")
	flags.IntVar(&o.Memory.MappedGB, "memory-gb", 64, "memory: data in the volume in the end")
	flags.IntVar(&o.Memory.LimitMB, "map-mb", 32, "memory: the map's limit in the bounded measurement")
	flags.IntVar(&o.Memory.Seconds, "memory-seconds", 3, "memory: seconds of each measurement")
	flags.IntVar(&o.Recovery.MappedGB, "recovery-gb", 100, "recovery: data in the volume")
	flags.IntVar(&o.Recovery.TailMB, "tail-mb", 0, "recovery: what is written after the last checkpoint; 0: nearly as much as there can be")
	flags.StringVar(&o.ProfileDir, "cpuprofile", "", "directory for CPU profiles of each measurement")
	flags.BoolVar(&apart, "apart", false, "this process has a mount namespace of its own")
	flags.Lookup("cpuprofile").Hidden, flags.Lookup("apart").Hidden = true, true
	return cmd
}

// runApart runs this command again in a mount namespace of its own. In that of
// the host somebody might copy the mounts into another one meanwhile, and disks
// could not be taken from a file system that is mounted there.
func runApart(ctx context.Context, env *environment) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // whose end would be the parent's for Pdeathsig
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, self, append(slices.Clone(os.Args[1:]), "--apart")...)
	cmd.Stdout, cmd.Stderr = env.stdout, env.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run in a mount namespace of its own: %w", err)
	}
	return nil
}

func printBenchVolume(env *environment, r *bench.VolumeResult) error {
	table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
	if r.IO != nil {
		printVolumeIO(table, r.IO)
	}
	if r.Cleaning != nil {
		printCleaning(table, r.Cleaning)
	}
	if r.Memory != nil {
		printMap(table, r.Memory)
	}
	if r.Recovery != nil {
		printRecovery(table, r.Recovery)
	}
	fmt.Fprintf(table, "\nload average before and after: %s\n", strings.Join(r.Load, "; "))
	return table.Flush()
}

func printVolumeIO(table *tabwriter.Writer, r *bench.VolumeIOResult) {
	fmt.Fprintf(table, "\t%s\tratio\twanted\n", strings.Join(r.Stacks, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintf(table, "%s, %s", row.Name, row.Unit)
		for _, s := range r.Stacks {
			fmt.Fprint(table, "\t", volumeFigure(row.Stacks[s], func(f *bench.IOFigures) string { return fmt.Sprintf("%.0f", f.Rate) }))
		}
		fmt.Fprintf(table, "\t%s\t%s\n", ratio(row.Stacks["log ext4"], row.Stacks["btrfs"]), wanted(row.Wanted))
	}
	fmt.Fprintf(table, "\nlatency p50 (p99), ms\t%s\n", strings.Join(r.Stacks, "\t"))
	printFigures(table, r, func(f *bench.IOFigures) string { return bothFine(bench.Summary{P50: f.P50, P99: f.P99}) })
	fmt.Fprintf(table, "\nCPU for each IO, machine (processes), us\t%s\n", strings.Join(r.Stacks, "\t"))
	printFigures(table, r, func(f *bench.IOFigures) string { return us(f.CPU) + " (" + us(f.ProcessCPU) + ")" })
	for _, note := range r.Notes {
		fmt.Fprintln(table, note)
	}
}

func printFigures(table *tabwriter.Writer, r *bench.VolumeIOResult, show func(f *bench.IOFigures) string) {
	for _, row := range r.Rows {
		fmt.Fprint(table, row.Name)
		for _, s := range r.Stacks {
			fmt.Fprint(table, "\t", volumeFigure(row.Stacks[s], show))
		}
		fmt.Fprintln(table)
	}
}

func volumeFigure(f *bench.IOFigures, show func(f *bench.IOFigures) string) string {
	if f == nil {
		return "-"
	}
	return show(f)
}

func ratio(ours, theirs *bench.IOFigures) string {
	if ours == nil || theirs == nil || theirs.Rate == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ours.Rate/theirs.Rate)
}

func wanted(ratio float64) string {
	if ratio == 0 {
		return ""
	}
	return fmt.Sprintf(">= %g", ratio)
}

func us(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Nanoseconds())/1000) }

func printCleaning(table *tabwriter.Writer, results []bench.CleaningResult) {
	fmt.Fprintln(table, "\nblocks written for each of users\tlog\treference\tlog : reference\twanted\tmap blocks besides")
	for _, r := range results {
		reference, most := "bound", 1.1
		if r.Skew != "uniform" {
			reference, most = "one stream", 0.6
		}
		fmt.Fprintf(table, "%d %% full, %s\t%.2f\t%.2f (%s)\t%.2f\t<= %g\t%.3f\n", r.Full, r.Skew, r.Amplification, r.Reference, reference, r.Amplification/r.Reference, most, r.Map)
	}
}

func printMap(table *tabwriter.Writer, r *bench.MapResult) {
	fmt.Fprintln(table, "\ndata\tmap\tGB for each TB\tresident\twrites/s\tCPU, us\treads/s\tCPU, us")
	line := func(name string, f *bench.MapFigures) {
		size := func(b bench.Bytes) string { return units.BytesSize(float64(b)) }
		fmt.Fprintf(table, "%s\t%s\t%.2f\t%s\t%.0f\t%s\t%.0f\t%s\n", name, size(f.MapBytes), float64(f.MapBytes)/float64(f.MappedGB)/1e6,
			size(f.Resident), f.Writes, us(f.WriteCPU), f.Reads, us(f.ReadCPU))
	}
	for i := range r.Sizes {
		line(fmt.Sprintf("%d GB", r.Sizes[i].MappedGB), &r.Sizes[i])
	}
	if r.Bounded != nil {
		line(fmt.Sprintf("%d GB, map bounded to %s", r.Bounded.MappedGB, units.BytesSize(float64(r.Limit))), r.Bounded)
	}
}

func printRecovery(table *tabwriter.Writer, r *bench.RecoveryResult) {
	fmt.Fprintf(table, "\nopen after a crash, %d GB mapped\tMiB since checkpoint\ts\tCPU, s\trows\tblocks checked\n", r.MappedGB)
	for _, c := range r.Cases {
		fmt.Fprintf(table, "%s\t%d\t%.2f\t%.2f\t%d\t%d\n", c.Name, c.TailMB, c.Took.Seconds(), c.CPU.Seconds(), c.Rows, c.Checked)
	}
}
