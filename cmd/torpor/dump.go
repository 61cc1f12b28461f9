package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"torpor/checkpoint"
	"torpor/host"
)

func newDumpCommand(env *environment) *cobra.Command {
	var to string
	var leaveRunning, asJSON bool
	cmd := &cobra.Command{
		Use:   "dump PID --to DIR",
		Short: "Checkpoint a process tree outside any container",
		Long: `Checkpoint a process and its descendants into a directory and end them.

Open files, sockets and pipes are held by a small process until the restore, so
connections stay open. The checkpoint lives until the machine restarts. What can
not be saved is refused, by name, and the processes run on unharmed.

Processes in the session of a terminal come back in a session of their own.`,
		Example: `  torpor dump 4242 --to /var/tmp/job
  torpor restore /var/tmp/job`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			pid, err := strconv.Atoi(args[0])
			if err != nil || pid <= 1 {
				return fmt.Errorf("dump %q: not a process id: %w", args[0], host.ErrInvalid)
			}
			dir, err := filepath.Abs(to)
			if err != nil {
				return err
			}
			report, err := checkpoint.DumpProcess(pid, dir, leaveRunning)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(map[string]any{
					"dir": dir, "processes": len(report.Spec.Processes), "threads": report.Threads,
					"written_bytes": report.WrittenBytes, "phases_ns": report.Phases,
				})
			}
			fmt.Fprintf(env.stdout, "%d processes, %d threads, %d KB in %s\n", len(report.Spec.Processes), report.Threads, report.WrittenBytes>>10, dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "directory for the checkpoint (required)")
	cmd.Flags().BoolVar(&leaveRunning, "leave-running", false, "let the processes go on after the checkpoint")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}
