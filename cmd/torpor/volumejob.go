package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
	"torpor/volume"
)

func newVolumeScrubCommand(env *environment, at *place) *cobra.Command {
	var repair, asJSON bool
	cmd := &cobra.Command{
		Use:   "scrub VOLUME",
		Short: "Read all of the log of a volume and compare it with checksums and parity",
		Long: `Read all of the log that a volume lies in, on all its disks, and compare it with
checksums and parity. It can be in use meanwhile. Interrupting the command ends the
scrub. Exit code 1 when something is wrong.`,
		Example: "  torpor volume scrub data\n  torpor volume scrub data --repair",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := daemon.NewClient(at.socket).ExamineVolume(cmd.Context(), "scrub", daemon.VolumeJobRequest{Volume: args[0], JobRequest: volume.JobRequest{Repair: repair}}, progressPrinter(env, asJSON))
			if err != nil {
				return err
			}
			return judge(env, args[0], report, asJSON)
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "write again what is wrong")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// judge prints what is wrong and makes it the command's error.
func judge(env *environment, name string, report volume.Report, asJSON bool) error {
	if !asJSON {
		for _, damage := range report.Damages {
			fmt.Fprintln(env.stdout, damage)
		}
		fmt.Fprintf(env.stdout, "%s: %s; %s read\n", name, report.Summary(), size(report.ReadBytes))
	}
	if !report.OK() {
		return fmt.Errorf("examine volume %s: %s: %w", name, report.Summary(), host.ErrCorrupt)
	}
	return nil
}

func newVolumeCheckCommand(env *environment, at *place) *cobra.Command {
	var stateDir string
	var data, asJSON bool
	cmd := &cobra.Command{
		Use:   "check VOLUME",
		Short: "Compare the structures of the log of a volume with each other",
		Long: `Compare map, segments and layers of the log that a volume lies in; with --data also
all data with its checksums. Without a daemon, and without a server of the log, the
disks are opened to read only. Exit code 1 when something is wrong.`,
		Example: "  torpor volume check data\n  torpor volume check data --data",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tell := progressPrinter(env, asJSON)
			report, err := daemon.NewClient(at.socket).ExamineVolume(cmd.Context(), "check", daemon.VolumeJobRequest{Volume: args[0], JobRequest: volume.JobRequest{Data: data}}, tell)
			if errors.Is(err, host.ErrDaemonDown) {
				report, err = checkOffline(cmd.Context(), stateDir, args[0], data, tell, err)
			}
			if err != nil {
				return err
			}
			return judge(env, args[0], report, asJSON)
		},
	}
	cmd.Flags().BoolVar(&data, "data", false, "read all data, too")
	cmd.Flags().StringVar(&stateDir, "state-dir", orDefault(os.Getenv("TORPOR_STATE_DIR"), daemon.DefaultStateDir), "state directory, without a daemon (TORPOR_STATE_DIR)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// checkOffline checks a log that no server has open. Where there is no volume of
// that name, it is the daemon that is missing.
func checkOffline(ctx context.Context, stateDir, name string, data bool, tell func(daemon.Progress), down error) (volume.Report, error) {
	report, err := volume.CheckOffline(ctx, stateDir, name, data, daemon.TellJob(name, "checking", tell))
	switch {
	case errors.Is(err, host.ErrNotFound):
		return report, down
	case errors.Is(err, host.ErrExists):
		return report, fmt.Errorf("%w; %w", err, down)
	case err != nil:
		return report, err
	}
	result, err := json.Marshal(report)
	tell(daemon.Progress{Subject: name, What: report.Summary(), Result: result})
	return report, err
}
