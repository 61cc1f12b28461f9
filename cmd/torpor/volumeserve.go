package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"torpor/kernel/proc"
	"torpor/volume"
)

// newVolumeServeCommand is what the daemon starts; people have no use for it.
func newVolumeServeCommand(env *environment) *cobra.Command {
	var config volume.Config
	cmd := &cobra.Command{
		Use:    "serve LOG",
		Short:  "Serve the volumes of a log",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			waitInParallel()
			config.Log = volume.LogID(args[0])
			// Else it could wait, for memory, for writes to its own block devices.
			if err := proc.BecomeFlusher(); err != nil {
				fmt.Fprintln(env.stderr, "torpor: warning:", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			server, err := volume.NewServer(config)
			if err != nil {
				return err
			}
			upgrades := make(chan os.Signal, 1)
			signal.Notify(upgrades, syscall.SIGHUP)
			defer signal.Stop(upgrades)
			ended := make(chan struct{})
			defer close(ended)
			go func() { // ends with the server, at the latest
				for {
					select {
					case <-upgrades:
						path, err := os.Executable()
						if err == nil {
							err = server.Upgrade(path)
						}
						fmt.Fprintln(env.stderr, "torpor:", err)
					case <-ended:
						return
					}
				}
			}()
			return server.Serve(ctx)
		},
	}
	cmd.Flags().StringVar(&config.StateDir, "state", "/var/lib/torpor", "state directory")
	cmd.Flags().StringVar(&config.RunDir, "run", "/run/torpor", "run directory")
	cmd.Flags().IntVar(&config.Handoff, "handoff", 0, "descriptor with what an earlier binary left")
	return cmd
}

// waitInParallel lets Go run so many threads at once although there may be less
// CPUs. A thread in a system call keeps its processor of Go's until a monitor
// takes notice, so with 2 of them 32 goroutines read 25,000 blocks of a disk a
// second, and 60,000 with 8.
func waitInParallel() { runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 16)) }
