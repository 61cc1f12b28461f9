package main

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
	"torpor/volume"
)

func newVolumeAttachCommand(env *environment, at *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "attach VOLUME",
		Short: "Make a volume a block device of this host, and print which",
		Long: `Make a volume a block device of this host and print its path. It is one until
torpor volume detach, also after a restart of the daemon or of the machine, but
then perhaps by another path. Doing it again prints the path again.`,
		Example: `  mkfs.ext4 $(torpor volume attach data)
  mount $(torpor volume attach data) /mnt/data`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := daemon.NewClient(at.socket).AttachVolume(cmd.Context(), volume.VolumeRequest{Volume: args[0]})
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(a)
			}
			fmt.Fprintln(env.stdout, a.Device)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newVolumeDetachCommand(env *environment, at *place) *cobra.Command {
	return &cobra.Command{
		Use:     "detach VOLUME",
		Short:   "Take the block device of a volume away",
		Long:    "Take the block device of a volume away. One that is mounted or open is refused;\none that services use stays for them.",
		Example: "  umount /mnt/data && torpor volume detach data",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeVolume(cmd, env, at, "detach", "detached", volume.VolumeRequest{Volume: args[0]})
		},
	}
}

// changeVolume asks for a change and says that it was made.
func changeVolume(cmd *cobra.Command, env *environment, at *place, verb, done string, r volume.VolumeRequest) error {
	if err := daemon.NewClient(at.socket).ChangeVolume(cmd.Context(), verb, r); err != nil {
		return err
	}
	name := r.Volume
	if r.Snapshot != "" {
		name += "@" + r.Snapshot
	}
	fmt.Fprintln(env.stdout, name, done)
	return nil
}

func newVolumeExportCommand(env *environment, at *place) *cobra.Command {
	var spec volume.ExportSpec
	var end, asJSON bool
	cmd := &cobra.Command{
		Use:   "export VOLUME",
		Short: "Offer a volume by NBD, on a Unix socket or a TCP port",
		Long: `Offer a volume by the Network Block Device protocol and print its URI. It is
offered until --end, also after a restart of the daemon or of the machine.

Whoever reaches a TCP port can read and write the volume: without --tls-ca anybody
is let in, and without --tls-cert all is readable on the way.`,
		Example: `  torpor volume export data                       # a Unix socket in the run directory
  torpor volume export data --listen tcp:10.0.0.1:10809 --tls-cert c.pem --tls-key k.pem --tls-ca ca.pem
  nbdinfo $(torpor volume export data)
  torpor volume export data --end`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkExport(&spec); err != nil {
				return wrongUse(cmd, err)
			}
			r := volume.VolumeRequest{Volume: args[0], Export: spec}
			if end {
				return changeVolume(cmd, env, at, "unexport", "is not exported any more", r)
			}
			s, err := daemon.NewClient(at.socket).ExportVolume(cmd.Context(), r)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(s)
			}
			fmt.Fprintln(env.stdout, s.URI)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&spec.Listen, "listen", "", "unix:PATH or tcp:ADDRESS:PORT (default: a Unix socket in the run directory)")
	flags.BoolVar(&spec.ReadOnly, "read-only", false, "let clients read only")
	flags.StringVar(&spec.CertFile, "tls-cert", "", "certificate of the server; TLS is required of clients then")
	flags.StringVar(&spec.KeyFile, "tls-key", "", "its key")
	flags.StringVar(&spec.CAFile, "tls-ca", "", "authority whose certificate clients need")
	flags.BoolVar(&end, "end", false, "do not offer it any more: at --listen, or anywhere")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// checkExport reads what was said and makes paths absolute.
func checkExport(spec *volume.ExportSpec) error {
	if (spec.CertFile == "") != (spec.KeyFile == "") || spec.CAFile != "" && spec.CertFile == "" {
		return fmt.Errorf("read flags: --tls-cert and --tls-key go together, and --tls-ca with them: %w", host.ErrInvalid)
	}
	paths := []*string{&spec.CertFile, &spec.KeyFile, &spec.CAFile}
	kind, where, _ := strings.Cut(spec.Listen, ":")
	switch kind {
	case "":
	case "unix":
		paths = append(paths, &where)
	case "tcp":
		if _, _, err := net.SplitHostPort(where); err != nil {
			return fmt.Errorf("read --listen %s: want tcp:ADDRESS:PORT: %w", spec.Listen, host.ErrInvalid)
		}
	default:
		return fmt.Errorf("read --listen %s: want unix:PATH or tcp:ADDRESS:PORT: %w", spec.Listen, host.ErrInvalid)
	}
	for _, path := range paths {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	if kind != "" {
		spec.Listen = kind + ":" + where
	}
	return nil
}
