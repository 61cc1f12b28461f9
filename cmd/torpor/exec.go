package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

// exitError carries the exit code of a command that ran.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("command ended with %d", e.code) }

func newExecCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var request daemon.ExecRequest
	var interactive, tty, noTTY bool
	var index int
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
			if tty && !isTerminal(env.stdin) {
				return fmt.Errorf("give %s a terminal: standard input is none; leave -t out: %w", args[0], host.ErrInvalid)
			}
			request.TTY = !noTTY && isTerminal(env.stdin) && isTerminal(env.stdout)
			if index < 1 || index > len(services) {
				return fmt.Errorf("find instance %d of %s: it has %d: %w", index, args[0], len(services), host.ErrNotFound)
			}
			line, err := client.Exec(cmd.Context(), services[index-1].ID, request)
			if err != nil {
				return err
			}
			return runExec(cmd.Context(), env, line)
		},
	}
	at.register(cmd)
	project.register(cmd)
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the service belongs to its command
	flags.IntVar(&index, "index", 1, "which instance, of a service that has several")
	flags.BoolVarP(&interactive, "interactive", "i", true, "pass standard input (always so)")
	flags.BoolVarP(&tty, "tty", "t", false, "insist on a terminal (there is one wherever there can be)")
	flags.BoolVarP(&noTTY, "no-tty", "T", false, "no terminal")
	flags.StringArrayVarP(&request.Env, "env", "e", nil, "environment variable NAME=value")
	flags.StringVarP(&request.WorkingDir, "workdir", "w", "", "working directory")
	flags.StringVarP(&request.User, "user", "u", "", "user[:group], by name or id (default: the service's)")
	return cmd
}

// runExec runs the runtime's command line with the streams of this process.
// What the command says, and its exit code, are passed on as they are.
func runExec(ctx context.Context, env *environment, line []string) error {
	log, err := os.CreateTemp("", "torpor-exec-")
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	args := append([]string{"--log", log.Name(), "--log-format", "json"}, line[1:]...)
	run := exec.CommandContext(ctx, line[0], args...)
	run.Stdin, run.Stdout, run.Stderr = env.stdin, env.stdout, env.stderr
	err = run.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() < 0 {
		return err
	}
	code := exit.ExitCode()
	if code == runtimeFailed {
		code = runtimeExitCode(log.Name())
	}
	return &exitError{code}
}

// runtimeFailed is the exit code of a runtime that did not run the command.
const runtimeFailed = 255

// runtimeExitCode is what a shell would say, from the runtime's own log.
func runtimeExitCode(log string) int {
	b, err := os.ReadFile(log)
	switch text := string(b); {
	case err != nil || text == "":
		return runtimeFailed // it was the command's own
	case strings.Contains(text, "no such file or directory"), strings.Contains(text, "executable file not found"):
		return 127
	case strings.Contains(text, "permission denied"), strings.Contains(text, "exec format error"):
		return 126
	}
	return runtimeFailed
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
