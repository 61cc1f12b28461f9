package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/bench"
)

// newBenchServerCommand is the Go program whose start is measured.
func newBenchServerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "server PORT",
		Short:  "Answer on a port: the Go program of bench wake --ready",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return bench.Serve(args[0]) },
	}
}

// benchReady compares starts, or makes clones.
func benchReady(ctx context.Context, env *environment, o bench.ReadyOptions, clones int, asJSON bool) error {
	if clones > 0 {
		result, err := bench.Clones(ctx, o, clones)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(env.stdout).Encode(result)
		}
		return printClones(env, result)
	}
	results, err := bench.Ready(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(env.stdout).Encode(results)
	}
	return printReady(env, results)
}

func printReady(env *environment, results []bench.ReadyResult) error {
	table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "to the first response, p50 (p99), ms\tcold\tfrom ready checkpoint\tits restore\tby CRIU\tcold : ready\tpaused once\twritten once")
	for _, r := range results {
		if r.Problem != "" {
			continue
		}
		criu := "-"
		if r.CRIU != nil && r.CRIU.Problem == "" {
			criu = both(r.CRIU.FirstByte)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t%s\n", r.Name, both(r.Cold), both(r.Ready), both(r.Restore), criu,
			float64(r.Cold.P50)/float64(r.Ready.P50), ms(r.Paused), units.BytesSize(float64(r.WrittenBytes)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		switch {
		case r.Problem != "":
			fmt.Fprintf(env.stdout, "%s: no figures: %s\n", r.Name, r.Problem)
			continue
		case r.CRIU != nil && r.CRIU.Problem != "":
			fmt.Fprintf(env.stdout, "%s: no figures of CRIU %s: %s\n", r.Name, r.CRIU.Version, r.CRIU.Problem)
		}
		fmt.Fprintf(env.stdout, "%s, where a restore goes (mean, ms): %s\n", r.Name, phases(r.Phases))
	}
	return nil
}

func printClones(env *environment, r *bench.CloneResult) error {
	size := func(b bench.Bytes) string { return units.BytesSize(float64(b)) }
	table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "%d clones of %s, p50 (p99), ms\t\n", r.Clones, r.Name)
	fmt.Fprintf(table, "restore\t%s\n", both(r.Restore))
	fmt.Fprintf(table, "  its open files and stub\t%s\n", both(r.Arm))
	fmt.Fprintf(table, "  its processes\t%s\n", both(r.Running))
	fmt.Fprintf(table, "first response of each\t%s\n", both(r.Response))
	fmt.Fprintf(table, "all, with namespaces\t%s\n", ms(r.All))
	fmt.Fprintf(table, "image, shared\t%s\n", size(r.ImageBytes))
	fmt.Fprintf(table, "memory of the machine, each, idle\t%s\n", size(r.MemoryBytes))
	fmt.Fprintf(table, "private memory, each, idle\t%s\n", size(r.PrivateIdle))
	fmt.Fprintf(table, "private memory, each, after its first response\t%s\n", size(r.PrivateUsed))
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(env.stdout, "where a restore goes (mean, ms): %s\n", phases(r.Phases))
	return err
}
