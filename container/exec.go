package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"torpor/host"
)

// ExecSpec is a command run in a container beside the application.
type ExecSpec struct {
	Args       []string
	Env        []string // additional
	WorkingDir string   // "" means the application's
	User       string   // uid[:gid]; "" means the application's
	TTY        bool     // the standard streams are a terminal
}

// ExecStreams are the standard streams of a command; nil is /dev/null. With a
// terminal all are the same one: the runtime sets it raw meanwhile, and passes
// on its size when it gets SIGWINCH, as a terminal's foreground process does.
type ExecStreams struct {
	Stdin, Stdout, Stderr *os.File
}

// Exec runs a command in a container and returns its exit code; 128 + signal
// if a signal ended it. Its streams are used as they are, nothing is copied
// through here. Errors: host.ErrNotFound without the container; a command that
// can not be executed is an error with the runtime's reason. The end of ctx
// kills the command itself, not only the runtime that waits for it.
func (r *Runtime) Exec(ctx context.Context, id host.ContainerID, e ExecSpec, streams ExecStreams) (int, error) {
	pidFile, err := os.CreateTemp("", "torpor-exec-")
	if err != nil {
		return 0, fmt.Errorf("run %s in container %s: %w", e.Args[0], id, err)
	}
	defer os.Remove(pidFile.Name())
	defer pidFile.Close()
	args := r.execArgs(id, e, "--pid-file", pidFile.Name())
	cmd := exec.CommandContext(ctx, args[0], append([]string{"--log-format", "json"}, args[1:]...)...)
	cmd.Cancel = func() error { return killCommand(cmd.Process, pidFile.Name()) }
	cmd.WaitDelay = execEnd
	// A nil *os.File in an interface would not be nil.
	if streams.Stdin != nil {
		cmd.Stdin = streams.Stdin
	}
	if streams.Stdout != nil {
		cmd.Stdout = streams.Stdout
	}
	if streams.Stderr != nil {
		cmd.Stderr = streams.Stderr
	}
	message, err := r.logged(cmd)
	exit := new(exec.ExitError)
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return 0, fmt.Errorf("run %s in container %s: %w", e.Args[0], id, ctx.Err())
	case message != "":
		if kind := kindOf(message); kind != nil {
			return 0, fmt.Errorf("run %s in container %s: %s: %w", e.Args[0], id, message, kind)
		}
		return 0, fmt.Errorf("run %s in container %s: %s", e.Args[0], id, message)
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	}
	return 0, fmt.Errorf("run %s in container %s: %w", e.Args[0], id, err)
}

// execEnd is how long the runtime may take to end after its command was killed.
const execEnd = 10 * time.Second

// killCommand kills what a runtime runs, so that the runtime ends by itself. The
// runtime is its parent and has not reaped it, so the pid is the right one; the
// command may begin before the file is written.
func killCommand(runtime *os.Process, pidFile string) error {
	for deadline := time.Now().Add(execEnd); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if pid := readPID(pidFile); pid > 0 {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := runtime.Signal(syscall.Signal(0)); err != nil {
			return err // ended without
		}
	}
	return runtime.Kill()
}

// readPID returns the pid in a file, 0 if there is none yet.
func readPID(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// ExecArgs is the command line that runs e in a container with the caller's
// own standard streams; its exit code is the command's. Killing it does not end
// the command: see Exec.
func (r *Runtime) ExecArgs(id host.ContainerID, e ExecSpec) []string { return r.execArgs(id, e) }

func (r *Runtime) execArgs(id host.ContainerID, e ExecSpec, options ...string) []string {
	args := append([]string{r.Path, "--root", r.Root, "exec"}, options...)
	if e.TTY {
		args = append(args, "--tty")
	}
	if e.WorkingDir != "" {
		args = append(args, "--cwd", e.WorkingDir)
	}
	if e.User != "" {
		args = append(args, "--user", e.User)
	}
	for _, v := range e.Env {
		args = append(args, "--env", v)
	}
	return append(append(args, string(id)), e.Args...)
}
