package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"torpor/daemon"
)

func newServeCommand(env *environment) *cobra.Command {
	var config daemon.Config
	var verbose bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground. Stopping it, or its crash, harms no service,
awake or asleep; the next one finds them again. Services sleep and wake meanwhile.`,
		Example: `  sudo torpor serve
  sudo systemctl enable --now torpor`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{Level: level}))
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			d, err := daemon.New(config, log)
			if err != nil {
				return err
			}
			return d.Serve(ctx, func() {
				if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
					fmt.Fprintf(env.stderr, "torpor: tell systemd: %v\n", err)
				}
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.StateDir, "state-dir", orDefault(os.Getenv("TORPOR_STATE_DIR"), daemon.DefaultStateDir), "state directory (TORPOR_STATE_DIR)")
	flags.StringVar(&config.RunDir, "run-dir", orDefault(os.Getenv("TORPOR_RUN_DIR"), daemon.DefaultRunDir), "run directory (TORPOR_RUN_DIR)")
	flags.StringVar(&config.Socket, "socket", os.Getenv("TORPOR_SOCKET"), "socket (TORPOR_SOCKET; default: torpor.sock in the run directory)")
	flags.StringVar(&config.Runtime, "runtime", os.Getenv("TORPOR_RUNTIME"), "OCI runtime (TORPOR_RUNTIME; default runc)")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log more")
	return cmd
}
