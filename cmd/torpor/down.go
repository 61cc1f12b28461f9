package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

func newDownCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var stop stopFlags
	var request daemon.DownRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop and remove the services of a project",
		Long: `Stop and remove the containers and networks of a project. Its volumes stay unless
-v is given; volumes and networks marked external stay always.` + stopHelp,
		Example: "  torpor down\n  torpor down -v -p shop",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := project.project(cmd.Context(), env)
			if err != nil {
				return err
			}
			if name == "" {
				return fmt.Errorf("end project: no compose file here; say which with -f or -p: %w", host.ErrInvalid)
			}
			request.Project, request.Stop = name, stop.options()
			return daemon.NewClient(at.socket).Down(cmd.Context(), request, progressPrinter(env, asJSON))
		},
	}
	at.register(cmd)
	project.register(cmd)
	stop.register(cmd)
	cmd.Flags().BoolVarP(&request.Volumes, "volumes", "v", false, "also remove its volumes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}
