package main

import (
	"fmt"
	"path/filepath"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
	"torpor/volume"
)

func newVolumeCreateCommand(env *environment, at *place) *cobra.Command {
	request := daemon.VolumeCreateRequest{TorporVolume: host.TorporVolume{Layout: host.DefaultLayout}}
	size, diskSize := sizeFlag{&request.SizeBytes}, sizeFlag{&request.DiskBytes}
	var fs string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create VOLUME",
		Short: "Make a volume, in a log of its own on some disks",
		Long: `Make a volume. Its log takes the disks: block devices, files, or directories, in
which <VOLUME>.volume is made. Without --disk it is a directory of Torpor's own.

The layout k+m says on how many disks data lies, and how many may be lost: 4+2
needs six or more disks, keeps all data when any two are gone, and takes 1.5 times
the space. Space is taken when it is written.

Disks that hold something are refused, unless --force says that it may be lost.`,
		Example: `  torpor volume create data --size 100G
  torpor volume create data --size 100G --layout 4+2 --disk /dev/sdb --disk /dev/sdc \
      --disk /dev/sdd --disk /dev/sde --disk /dev/sdf --disk /dev/sdg
  torpor volume create data --size 10G --layout 1+1 --disk /mnt/a --disk /mnt/b --fs xfs`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			if err := volume.CheckName(request.Name); err != nil {
				return err
			}
			if fs != "" {
				var err error
				if request.FS, err = host.ParseFileSystem(fs); err != nil {
					return err
				}
			}
			if n := len(request.Disks); request.Layout.Disks() > max(n, 1) {
				return fmt.Errorf("create volume %s: layout %s needs %d disks, %d are given; say --disk for each: %w",
					request.Name, request.Layout, request.Layout.Disks(), n, host.ErrInvalid)
			}
			for i, disk := range request.Disks {
				var err error
				if request.Disks[i], err = filepath.Abs(disk); err != nil {
					return err
				}
			}
			return daemon.NewClient(at.socket).CreateVolume(cmd.Context(), request, progressPrinter(env, asJSON))
		},
	}
	request.SizeBytes = host.DefaultVolumeBytes
	flags := cmd.Flags()
	flags.Var(&size, "size", "size, such as 100G; space is taken when it is written")
	flags.TextVar(&request.Layout, "layout", host.DefaultLayout, "DATA+PARITY disks")
	flags.StringArrayVar(&request.Disks, "disk", nil, "block device, file or directory; once for each disk")
	flags.Var(&diskSize, "disk-size", "size of disks in directories (default: enough for the volume)")
	flags.StringVar(&fs, "fs", "", "file system that services get: ext4, xfs or btrfs (default ext4)")
	flags.BoolVar(&request.Force, "force", false, "also on disks that hold something, which is lost")
	flags.BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// sizeFlag is a flag that takes "100G", in powers of 1024.
type sizeFlag struct{ bytes *int64 }

func (f *sizeFlag) String() string {
	if f.bytes == nil || *f.bytes == 0 {
		return ""
	}
	return units.BytesSize(float64(*f.bytes))
}

// Type implements pflag.Value.
func (*sizeFlag) Type() string { return "size" }

// Set implements pflag.Value.
func (f *sizeFlag) Set(text string) error {
	n, err := parseSize(text)
	if err == nil {
		*f.bytes = n
	}
	return err
}

func parseSize(text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("read size %q: want one such as 100G: %w", text, host.ErrInvalid)
	}
	return n, nil
}
