package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"torpor/bench"
)

func newBenchSocketsCommand(env *environment) *cobra.Command {
	var o bench.SocketsOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sockets",
		Short: "Measure connections that are kept without sockets",
		Long: `Suspend connections between two network namespaces, with the package that Go
programs use (torpor/socket/idle), and wake them. Needs root, no daemon.

latency:  a request and its echo, on a connection that is awake and on one that
          is suspended each time, in turn
rates:    10,000 connections at once, on one thread
count:    so many are suspended at the same time, with their peers, who have
          source addresses of their own; then some are asked`,
		Example: `  sudo torpor bench sockets
  sudo torpor bench sockets --count 1000000
  sudo torpor bench sockets --count 1000 --requests 100 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Progress = func(line string) { fmt.Fprintln(env.stderr, line) }
			result, err := bench.Sockets(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(result)
			}
			return printBenchSockets(env, result)
		},
	}
	cmd.Flags().IntVar(&o.Count, "count", 100_000, "connections that are suspended at the same time")
	cmd.Flags().IntVar(&o.Requests, "requests", 1000, "requests of each kind")
	cmd.Flags().StringVar(&o.Dir, "dir", "/var/tmp", "where the socket image is written")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printBenchSockets(env *environment, r *bench.SocketsResult) error {
	table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "echo on an awake connection, p50 (p99), ms\t%s\n", bothFine(r.Awake))
	fmt.Fprintf(table, "echo on a suspended connection\t%s\n", bothFine(r.Woken))
	fmt.Fprintf(table, "added by the wake, p50, ms\t%.3f\n", float64((r.Woken.P50-r.Awake.P50).Microseconds())/1000)
	fmt.Fprintf(table, "suspends a second, one thread\t%.0f\n", r.Suspends)
	fmt.Fprintf(table, "restores a second, one thread\t%.0f\n", r.Restores)
	fmt.Fprintf(table, "suspended at the same time\t%d, in %s with their peers\n", r.Count, r.All.Round(100*time.Millisecond))
	fmt.Fprintf(table, "bytes each: in the file\t%.1f\n", r.FileBytes)
	fmt.Fprintf(table, "bytes each: index, in memory\t%.1f\n", r.HeapBytes)
	fmt.Fprintf(table, "bytes each: objects of the kernel\t%.1f (%d sockets)\n", r.SlabBytes, r.Sockets)
	fmt.Fprintf(table, "woken at random, answered right\t%d of %d\n", r.Correct, r.Asked)
	return table.Flush()
}

// bothFine is both for what takes much less than a millisecond.
func bothFine(s bench.Summary) string {
	return fmt.Sprintf("%.3f (%.3f)", float64(s.P50.Microseconds())/1000, float64(s.P99.Microseconds())/1000)
}
