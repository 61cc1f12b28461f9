package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"torpor/checkpoint"
)

func newRestoreCommand(env *environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore DIR",
		Short: "Restore a process tree that torpor dump wrote",
		Long: `Restore the processes of a checkpoint with the ids, memory, files and connections
they had. The directory must stay as long as they live: their memory is mapped
from it. A checkpoint that is damaged, of an earlier boot or of another kernel is
never restored.`,
		Example: `  torpor dump 4242 --to /var/tmp/job
  torpor restore /var/tmp/job`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			pid, err := checkpoint.RestoreProcess(dir)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(map[string]int{"pid": pid})
			}
			fmt.Fprintln(env.stdout, pid)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
