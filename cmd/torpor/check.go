package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/kernel/feature"
)

// checkReport is what torpor check --json prints.
type checkReport struct {
	OK       bool             `json:"ok"` // services can run and sleep
	Features []feature.Result `json:"features"`
}

func newCheckCommand(env *environment) *cobra.Command {
	var o feature.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what this machine can do and what that enables",
		Long: `Try everything that Torpor needs of this machine, and say for what is missing
what that costs and what to do about it. It needs root, like the daemon, and
leaves nothing behind.

Exit codes: 0 services can run and sleep; 1 something they need is missing.`,
		Example: `  sudo torpor check
  sudo torpor check --json | jq '.features[] | select(.ok | not)'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			results := feature.Check(o)
			missing := len(feature.Missing(results))
			if err := printCheck(env, results, missing == 0, asJSON); err != nil {
				return err
			}
			if missing > 0 {
				return fmt.Errorf("check machine: %d things that services need are missing; the next steps are above", missing)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&o.StateDir, "state-dir", orDefault(os.Getenv("TORPOR_STATE_DIR"), daemon.DefaultStateDir), "state directory (TORPOR_STATE_DIR)")
	cmd.Flags().StringVar(&o.Runtime, "runtime", orDefault(os.Getenv("TORPOR_RUNTIME"), "runc"), "OCI runtime (TORPOR_RUNTIME)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printCheck(env *environment, results []feature.Result, ok, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(env.stdout).Encode(checkReport{ok, results})
	}
	table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "FEATURE\tSTATE\tFOR")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Name, checkState(r), r.Enables)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if !r.OK {
			fmt.Fprintf(env.stdout, "\n%s: %s\n  without it: %s\n  next step:  %s\n", r.Name, r.Cause, r.Without, r.Next)
		}
	}
	if ok {
		fmt.Fprintln(env.stdout, "\nServices can run and sleep on this machine.")
	}
	return nil
}

func checkState(r feature.Result) string {
	switch {
	case r.OK && r.Detail != "":
		return "ok (" + r.Detail + ")"
	case r.OK:
		return "ok"
	case r.Required:
		return "MISSING"
	}
	return "missing, optional"
}
