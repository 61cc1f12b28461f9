package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"torpor/host"
	"torpor/volume"
)

// snapshotOf reads VOLUME@SNAPSHOT.
func snapshotOf(text string) (volume.VolumeRequest, error) {
	name, snapshot, ok := strings.Cut(text, "@")
	if !ok || name == "" || snapshot == "" {
		return volume.VolumeRequest{}, fmt.Errorf("find snapshot %q: want VOLUME@SNAPSHOT, as torpor volume inspect VOLUME lists them: %w", text, host.ErrInvalid)
	}
	return volume.VolumeRequest{Volume: name, Snapshot: snapshot}, nil
}

func newVolumeSnapshotCommand(env *environment, at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot VOLUME@SNAPSHOT",
		Short: "Keep what a volume holds now, by a name",
		Long: `Keep what a volume holds now. That takes no space until the volume changes. The
content is that of a power cut in this moment: file systems and databases recover
from it; what services have mounted is written out before.`,
		Example: "  torpor volume snapshot data@monday\n  torpor volume clone data@monday restored",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := snapshotOf(args[0])
			if err != nil {
				return err
			}
			return changeVolume(cmd, env, at, "snapshot", "is kept", r)
		},
	}
}

func newVolumeCloneCommand(env *environment, at *place) *cobra.Command {
	return &cobra.Command{
		Use:   "clone VOLUME@SNAPSHOT NEW",
		Short: "Make a volume of a snapshot, sharing what neither has changed",
		Long: `Make a volume that begins as a snapshot. It lies in the log of its origin and shares
with it what neither of them has changed.`,
		Example: "  torpor volume clone data@monday test",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := snapshotOf(args[0])
			if err != nil {
				return err
			}
			r.Clone = args[1]
			if err := volume.CheckName(r.Clone); err != nil {
				return err
			}
			return changeVolume(cmd, env, at, "clone", "is cloned as "+r.Clone, r)
		},
	}
}

func newVolumeResizeCommand(env *environment, at *place) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "resize VOLUME SIZE",
		Short: "Change the size of a volume, and of its file system if services use it",
		Long: `Change the size of a volume. A larger one may be in use; the file system that
services have mounted grows too. A smaller one loses what is behind its new end:
shrink the file system before, detach the volume, and say --force.`,
		Example: "  torpor volume resize data 200G",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			bytes, err := parseSize(args[1])
			if err != nil {
				return wrongUse(cmd, err)
			}
			return changeVolume(cmd, env, at, "resize", "has "+size(bytes), volume.VolumeRequest{Volume: args[0], SizeBytes: bytes, Force: force})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also smaller: what is behind the end is lost")
	return cmd
}

func newVolumeRemoveCommand(env *environment, at *place) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm VOLUME[@SNAPSHOT]...",
		Short: "Remove volumes or snapshots",
		Long: `Remove volumes with their snapshots, or single snapshots. With the last volume of
a log the log goes, too: what was made for it in directories is removed, other
disks are free for other uses. A volume that is attached or exported is refused
unless --force takes that away; one that services use is refused until torpor down.`,
		Example: "  torpor volume rm data@monday\n  torpor volume rm --force data",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				r := volume.VolumeRequest{Volume: arg, Force: force}
				if strings.Contains(arg, "@") {
					var err error
					if r, err = snapshotOf(arg); err != nil {
						return err
					}
				}
				if err := changeVolume(cmd, env, at, "remove", "removed", r); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while it is attached or exported")
	return cmd
}
