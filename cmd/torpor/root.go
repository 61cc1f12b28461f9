package main

import (
	"context"
	"errors"
	"fmt"
	"io"

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
	{3, host.ErrRefused, "refused; nothing was touched"},
	{4, host.ErrDaemonDown, "the daemon is not running"},
	{5, host.ErrNotFound, "no such service, image or checkpoint"},
	{6, host.ErrKernel, "this kernel lacks a feature; see torpor check"},
	{2, host.ErrInvalid, "wrong use or input"},
	{2, host.ErrUnsupported, "wrong use or input"},
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, env *environment, args []string) int {
	root := newRootCommand(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(env.stderr, "torpor: %v\n", err)
	for _, e := range exitCodes {
		if errors.Is(err, e.err) {
			return e.code
		}
	}
	return 1
}

func newRootCommand(env *environment) *cobra.Command {
	root := &cobra.Command{
		Use:           "torpor",
		Short:         "Run services that sleep while idle, with their connections open",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.AddCommand(
		newBenchCommand(env),
		newCheckCommand(env),
		newDumpCommand(env),
		newKeeperCommand(env),
		newRestoreCommand(env),
	)
	return root
}
