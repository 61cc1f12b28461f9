package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"torpor/compose"
)

func newConfigCommand(env *environment) *cobra.Command {
	var project projectFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "config [SERVICE...]",
		Short: "Print what was understood of the compose file",
		Long: `Print the compose file after interpolation, profiles and extends, as Torpor
understands it. Secrets given by the environment are not printed.`,
		Example: "  torpor config\n  torpor config --json web",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := project.load(cmd.Context(), env, args)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(compose.Redacted(p))
			}
			text, err := compose.Marshal(p)
			if err != nil {
				return err
			}
			_, err = env.stdout.Write(text)
			return err
		},
	}
	project.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
