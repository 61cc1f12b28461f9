package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"torpor/daemon"
)

func newVolumeDiskCommand(env *environment, at *place) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disk",
		Short: "Add and replace the disks of a volume's log",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVolumeDiskAddCommand(env, at), newVolumeDiskReplaceCommand(env, at))
	return cmd
}

func newVolumeDiskAddCommand(env *environment, at *place) *cobra.Command {
	var request daemon.VolumeDiskRequest
	size := sizeFlag{&request.DiskBytes}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "add VOLUME DISK",
		Short: "Give the log of a volume another disk",
		Long: `Give the log of a volume another disk: a block device, a file, or a directory. What
is written from now on lies on it too; the layout stays.`,
		Example: "  torpor volume disk add data /dev/sdh",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			request.Volume = args[0]
			if request.Disk, err = filepath.Abs(args[1]); err != nil {
				return err
			}
			return daemon.NewClient(at.socket).AddVolumeDisk(cmd.Context(), request, progressPrinter(env, asJSON))
		},
	}
	cmd.Flags().Var(&size, "disk-size", "size of a disk in a directory (default: that of the others)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

func newVolumeDiskReplaceCommand(env *environment, at *place) *cobra.Command {
	var request daemon.VolumeDiskRequest
	size := sizeFlag{&request.DiskBytes}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replace VOLUME OLD NEW",
		Short: "Put a disk in the place of another, and fill it",
		Long: `Put a disk in the place of another one, that is lost or to be taken out, and fill
it with what that held. The volume stays in use meanwhile. Interrupting the command
does not end that: torpor volume inspect shows how far it is.`,
		Example: "  torpor volume disk replace data /dev/sdc /dev/sdh",
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			request.Volume = args[0]
			if request.Old, err = filepath.Abs(args[1]); err != nil {
				return err
			}
			if request.Disk, err = filepath.Abs(args[2]); err != nil {
				return err
			}
			return daemon.NewClient(at.socket).ReplaceVolumeDisk(cmd.Context(), request, progressPrinter(env, asJSON))
		},
	}
	cmd.Flags().Var(&size, "disk-size", "size of a disk in a directory (default: that of the others)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}
