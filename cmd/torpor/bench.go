package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"torpor/bench"
)

func newBenchCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure Torpor on this machine",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newBenchWakeCommand(env), newBenchSocketsCommand(env), newBenchVolumeCommand(env), newBenchServerCommand())
	return cmd
}

func newBenchWakeCommand(env *environment) *cobra.Command {
	var o bench.WakeOptions
	var asJSON, ready bool
	var starts bench.ReadyOptions
	var clones int
	cmd := &cobra.Command{
		Use:   "wake",
		Short: "Measure how fast services sleep and wake",
		Long: `Run a python service with heaps of several sizes, hold a connection open, put it
to sleep and send a request, again and again. Needs root and python3, no daemon.

running:        from the packet's event to all threads running
first response: from sending the request to its answer, on the open connection
awake response: the same while the service is awake
sleep:          each sleep after the first, with what it wrote

With --ready the starts of several programs are compared: cold, from a ready
checkpoint, and restored by CRIU; with --clone N, N instances of one python
service with 200 MB are made from one checkpoint.

Where CRIU is installed the same program is then dumped and restored by it, in
turn with ours; without an open connection, so it has the easier task.`,
		Example: `  sudo torpor bench wake
  sudo torpor bench wake --heap 10,1000 --cycles 50 --json
  sudo torpor bench wake --criu /opt/criu/sbin/criu
  sudo torpor bench wake --criu ""    # without the comparison
  sudo torpor bench wake --ready --only django,node
  sudo torpor bench wake --clone 100`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Keeper = []string{self, "keeper"}
			if !cmd.Flags().Changed("criu") {
				if _, err := exec.LookPath(o.CRIU); err != nil {
					o.CRIU = "" // not installed
				}
			}
			o.Progress = func(line string) { fmt.Fprintln(env.stderr, line) }
			if ready || clones > 0 {
				starts.WakeOptions, starts.Self = o, self
				return benchReady(cmd.Context(), env, starts, clones, asJSON)
			}
			results, err := bench.Wake(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(results)
			}
			return printWake(env, results)
		},
	}
	cmd.Flags().IntSliceVar(&o.HeapMB, "heap", []int{10, 200, 1000}, "heap sizes in MB")
	cmd.Flags().IntVar(&o.Cycles, "cycles", 21, "sleeps and wakes of each case")
	cmd.Flags().StringVar(&o.Program, "python", "/usr/bin/python3", "python interpreter")
	cmd.Flags().StringVar(&o.Dir, "dir", "/var/tmp", "where checkpoints are written")
	cmd.Flags().StringVar(&o.CRIU, "criu", "criu", "CRIU to compare with, if it is there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&ready, "ready", false, "compare starts: cold, from a ready checkpoint, by CRIU")
	cmd.Flags().StringSliceVar(&starts.Programs, "only", nil, "with --ready: only programs whose names begin so")
	cmd.Flags().BoolVar(&starts.Healthcheck, "healthcheck", false, "with --ready and --clone: ask once before the checkpoint is made, as a healthcheck does")
	cmd.Flags().IntVar(&clones, "clone", 0, "make so many instances of one ready checkpoint")
	return cmd
}

func printWake(env *environment, results []bench.WakeResult) error {
	table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "p50 (p99), ms\trunning\tfirst response\tawake response\tsleep\tfirst sleep\twritten")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d KB\n", r.Name, both(r.Running), both(r.FirstByte), both(r.Awake), both(r.Sleep), ms(r.FirstSleep), r.WrittenBytes>>10)
		if c := r.CRIU; c != nil && c.Problem == "" {
			fmt.Fprintf(table, "  CRIU %s\t%s\t%s\t\t%s\t\t\n", c.Version, both(c.Running), both(c.FirstByte), both(c.Sleep))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if c := r.CRIU; c != nil && c.Problem != "" {
			fmt.Fprintf(env.stdout, "%s: no figures of CRIU %s: %s\n", r.Name, c.Version, c.Problem)
		}
		fmt.Fprintf(env.stdout, "%s, where a wake goes (mean, ms): %s\n", r.Name, phases(r.WakePhases))
		fmt.Fprintf(env.stdout, "%s, where a sleep goes (mean, ms): %s\n", r.Name, phases(r.Phases))
	}
	return nil
}

func both(s bench.Summary) string { return fmt.Sprintf("%s (%s)", ms(s.P50), ms(s.P99)) }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Nanoseconds())/1e6) }

// phases lists phases, the longest first.
func phases(all map[string]time.Duration) string {
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(all[b] - all[a]) })
	var parts []string
	for _, name := range names {
		parts = append(parts, name+" "+ms(all[name]))
	}
	return strings.Join(parts, ", ")
}
