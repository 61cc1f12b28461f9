package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
)

func newImageCommand(env *environment) *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Pull, import, list and remove images",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	at.register(cmd)
	cmd.AddCommand(newImagePullCommand(env, &at), newImageImportCommand(env, &at), newImageListCommand(env, &at), newImageRemoveCommand(env, &at))
	return cmd
}

func newImagePullCommand(env *environment, at *place) *cobra.Command {
	var request daemon.ImageRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "pull IMAGE",
		Short:   "Pull an image from its registry",
		Example: "  torpor image pull redis:7",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			return daemon.NewClient(at.socket).PullImage(cmd.Context(), request, progressPrinter(env, asJSON))
		},
	}
	cmd.Flags().StringVar(&request.Platform, "platform", "", "os/arch[/variant]")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

func newImageImportCommand(env *environment, at *place) *cobra.Command {
	var request daemon.ImageRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "import PATH",
		Short:   "Import images from an OCI layout or a docker save archive",
		Example: "  docker save redis:7 -o redis.tar && torpor image import redis.tar",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if request.Path, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			return daemon.NewClient(at.socket).ImportImages(cmd.Context(), request, progressPrinter(env, asJSON))
		},
	}
	cmd.Flags().StringVar(&request.Name, "name", "", "name for the image instead of the archive's")
	cmd.Flags().StringVar(&request.Platform, "platform", "", "os/arch[/variant]")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

func newImageListCommand(env *environment, at *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List images",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := daemon.NewClient(at.socket).Images(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(images)
			}
			table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "IMAGE\tID\tPLATFORM\tCREATED\tSIZE")
			for _, i := range images {
				id, _, _ := strings.Cut(strings.TrimPrefix(string(i.ID), "sha256:"), "x")
				fmt.Fprintf(table, "%s\t%.12s\t%s\t%s ago\t%s\n", strings.Join(i.Refs, ", "), id, i.Platform, units.HumanDuration(time.Since(i.Created)), units.BytesSize(float64(i.SizeBytes)))
			}
			return table.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newImageRemoveCommand(env *environment, at *place) *cobra.Command {
	var request daemon.ImageRequest
	cmd := &cobra.Command{
		Use:     "rm IMAGE...",
		Short:   "Remove images",
		Example: "  torpor image rm redis:7",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				request.Name = name
				if err := daemon.NewClient(at.socket).RemoveImage(cmd.Context(), request); err != nil {
					return err
				}
				fmt.Fprintln(env.stdout, name, "removed")
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&request.Force, "force", "f", false, "also while a service uses it")
	return cmd
}
