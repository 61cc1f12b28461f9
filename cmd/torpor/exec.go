package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"torpor/daemon"
)

// exitError carries the exit code of a command that ran.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("command ended with %d", e.code) }

func newExecCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var request daemon.ExecRequest
	var interactive, noTTY bool
	cmd := &cobra.Command{
		Use:   "exec SERVICE COMMAND [ARG...]",
		Short: "Run a command in a service's container, waking it",
		Long: `Run a command in the container of a service; a sleeping one is woken. The exit
code is the command's. The service does not sleep while the command runs.`,
		Example: `  torpor exec web ls /
  torpor exec db psql -U postgres`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client := daemon.NewClient(at.socket)
			services, err := project.find(cmd.Context(), env, client, args[:1])
			if err != nil {
				return err
			}
			request.Args = args[1:]
			request.TTY = !noTTY && isTerminal(env.stdin) && isTerminal(env.stdout)
			line, err := client.Exec(cmd.Context(), services[0].ID, request)
			if err != nil {
				return err
			}
			run := exec.CommandContext(cmd.Context(), line[0], line[1:]...)
			run.Stdin, run.Stdout, run.Stderr = env.stdin, env.stdout, env.stderr
			err = run.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() > 0 {
				return &exitError{exit.ExitCode()}
			}
			return err
		},
	}
	at.register(cmd)
	project.register(cmd)
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the service belongs to its command
	flags.BoolVarP(&interactive, "interactive", "i", true, "pass standard input (always so)")
	flags.BoolVarP(&noTTY, "no-tty", "T", false, "no terminal")
	flags.StringArrayVarP(&request.Env, "env", "e", nil, "environment variable NAME=value")
	flags.StringVarP(&request.WorkingDir, "workdir", "w", "", "working directory")
	flags.StringVarP(&request.User, "user", "u", "", "user id[:group id]")
	return cmd
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
