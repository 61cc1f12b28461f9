package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

func newCheckpointCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "List, check and remove ready checkpoints",
		Long: `A service with x-torpor's "checkpoint: ready" is checkpointed when it is ready and
before anybody reached it; later starts restore that, until something it depends
on has changed. One checkpoint serves all instances of a service, and stays when
they are removed, until torpor down -v.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCheckpointListCommand(env), newCheckpointCheckCommand(env), newCheckpointRemoveCommand(env))
	return cmd
}

func newCheckpointListCommand(env *environment) *cobra.Command {
	var at place
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List ready checkpoints",
		Example: "  torpor checkpoint ls --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := daemon.NewClient(at.socket).Checkpoints(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(all)
			}
			table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "SERVICE\tMADE\tDISK\tCOLD START\tINSTANCES\tPROBLEM")
			for _, c := range all {
				made := "-"
				if !c.Created.IsZero() {
					made = units.HumanDuration(time.Since(c.Created)) + " ago"
				}
				fmt.Fprintf(table, "%s/%s\t%s\t%s\t%s ms\t%d\t%s\n", c.Project, c.Service, made, units.BytesSize(float64(c.DiskBytes)), ms(c.ColdStart), len(c.Instances), c.Problem)
			}
			return table.Flush()
		},
	}
	at.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newCheckpointCheckCommand(env *environment) *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   "check PROJECT/SERVICE...",
		Short: "Read all of ready checkpoints and compare them with their checksums",
		Long: `Read all of ready checkpoints and compare them with their checksums. A start does
not: it reads only what the service touches, and notices changes by size and time.`,
		Example: "  torpor checkpoint check shop/web",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client := daemon.NewClient(at.socket)
			return eachCheckpoint(args, func(r daemon.CheckpointRequest) error {
				if err := client.CheckCheckpoint(cmd.Context(), r); err != nil {
					return err
				}
				fmt.Fprintf(env.stdout, "%s/%s is as it was made\n", r.Project, r.Service)
				return nil
			})
		},
	}
	at.register(cmd)
	return cmd
}

func newCheckpointRemoveCommand(env *environment) *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:     "rm PROJECT/SERVICE...",
		Short:   "Remove ready checkpoints; the next start is cold",
		Long:    "Remove ready checkpoints. What runs goes on; the next start of the service is cold\nand makes another.",
		Example: "  torpor checkpoint rm shop/web && torpor restart shop/web",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client := daemon.NewClient(at.socket)
			return eachCheckpoint(args, func(r daemon.CheckpointRequest) error {
				if err := client.RemoveCheckpoint(cmd.Context(), r); err != nil {
					return err
				}
				fmt.Fprintf(env.stdout, "%s/%s removed\n", r.Project, r.Service)
				return nil
			})
		},
	}
	at.register(cmd)
	return cmd
}

// eachCheckpoint does f to the checkpoints that arguments name.
func eachCheckpoint(args []string, f func(daemon.CheckpointRequest) error) error {
	for _, arg := range args {
		project, service, ok := strings.Cut(arg, "/")
		if !ok || project == "" || service == "" {
			return fmt.Errorf("find checkpoint %q: want PROJECT/SERVICE, as torpor checkpoint ls shows it: %w", arg, host.ErrInvalid)
		}
		if err := f(daemon.CheckpointRequest{Project: host.ProjectName(project), Service: host.ServiceName(service)}); err != nil {
			return err
		}
	}
	return nil
}
