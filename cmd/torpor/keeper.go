package main

import (
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"torpor/keeper"
)

// newKeeperCommand is what the daemon starts; people have no use for it.
func newKeeperCommand(_ *environment) *cobra.Command {
	var state, run string
	cmd := &cobra.Command{
		Use:    "keeper",
		Short:  "Keep what outlives the daemon: logs, sleeping services",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			server, err := keeper.NewServer(keeper.Config{Socket: filepath.Join(run, "keeper.sock"), StateDir: state})
			if err != nil {
				return err
			}
			return server.Serve(ctx)
		},
	}
	cmd.Flags().StringVar(&state, "state", "/var/lib/torpor", "state directory")
	cmd.Flags().StringVar(&run, "run", "/run/torpor", "run directory")
	return cmd
}
