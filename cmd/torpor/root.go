package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"torpor/host"
)

// environment is what a command may use of the process it runs in.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// exitCodes is the one table of exit codes; help prints it.
var exitCodes = []struct {
	code int
	err  error
	text string
}{
	{2, host.ErrInvalid, "wrong use, or input that is wrong or not supported"},
	{2, host.ErrUnsupported, ""},
	{3, host.ErrRefused, "refused; nothing was touched"},
	{4, host.ErrDaemonDown, "the daemon is not running"},
	{5, host.ErrNotFound, "no such service, image, file or checkpoint"},
	{6, host.ErrKernel, "this kernel lacks a feature; see torpor check"},
}

// exitOrder is which kind decides when an error has several.
var exitOrder = []error{host.ErrRefused, host.ErrDaemonDown, host.ErrInvalid, host.ErrUnsupported, host.ErrNotFound, host.ErrKernel}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, env *environment, args []string) int {
	root := newRootCommand(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	fmt.Fprintf(env.stderr, "torpor: %v\n", err)
	return exitCode(err)
}

func exitCode(err error) int {
	for _, kind := range exitOrder {
		if !errors.Is(err, kind) {
			continue
		}
		for _, e := range exitCodes {
			if e.err == kind {
				return e.code
			}
		}
	}
	return 1
}

func newRootCommand(env *environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "torpor",
		Short: "Run services that sleep while idle, with their connections open",
		Long: `Run the services of a compose file. An idle one falls asleep: its memory goes back
to the machine, its TCP connections stay open, and the next packet wakes it.`,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.SetFlagErrorFunc(wrongUse)
	root.SetHelpTemplate(root.HelpTemplate() + "\n" + exitCodeHelp())
	root.AddCommand(
		newBenchCommand(env),
		newCheckCommand(env),
		newCheckpointCommand(env),
		newCloneCommand(env),
		newConfigCommand(env),
		newDownCommand(env),
		newDumpCommand(env),
		newEventsCommand(env),
		newExecCommand(env),
		newImageCommand(env),
		newKeeperCommand(env),
		newLogsCommand(env),
		newPsCommand(env),
		newRemoveCommand(env),
		newRestartCommand(env),
		newRestoreCommand(env),
		newServeCommand(env),
		newSleepCommand(env),
		newSocketsCommand(env),
		newStartCommand(env),
		newStatsCommand(env),
		newStopCommand(env),
		newUpCommand(env),
		newVersionCommand(env),
		newVolumeCommand(env),
		newWakeCommand(env),
	)
	markWrongUse(root)
	return root
}

// useError is an error of the command line; its text needs no kind.
type useError struct {
	cause   error
	command string
}

func (e *useError) Error() string {
	return fmt.Sprintf("%v\nsee: %s --help", strings.TrimSpace(e.cause.Error()), e.command)
}

func (*useError) Unwrap() error { return host.ErrInvalid }

// wrongUse gives errors of the command line their exit code.
func wrongUse(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &useError{err, cmd.CommandPath()}
}

// markWrongUse does so for the numbers of arguments of all commands.
func markWrongUse(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error { return wrongUse(c, check(c, args)) }
	}
	for _, child := range cmd.Commands() {
		markWrongUse(child)
	}
}

// exitCodeHelp is the table of exit codes as help shows it.
func exitCodeHelp() string {
	text := "Exit codes:\n  0  done\n  1  an error\n"
	seen := map[int]bool{}
	for _, e := range exitCodes {
		if !seen[e.code] { // the first of a code has the text
			seen[e.code] = true
			text += fmt.Sprintf("  %d  %s\n", e.code, e.text)
		}
	}
	return text
}
