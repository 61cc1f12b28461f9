package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"torpor/host"
)

// Runtime drives an OCI runtime by its command line.
type Runtime struct {
	Path string // of the executable; "runc" is looked up in PATH
	Root string // directory of the runtime's own state
}

// OpenRuntime finds the executable. Errors: host.ErrNotFound with the next
// step.
func OpenRuntime(path, root string) (*Runtime, error) {
	if path == "" {
		path = "runc"
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return nil, fmt.Errorf("find OCI runtime %s (install it: apt install runc, or name another with --runtime): %w", path, host.ErrNotFound)
	}
	return &Runtime{Path: found, Root: root}, nil
}

// Create makes a container from a bundle directory. Its init exists
// afterwards, stopped before its first instruction; its pid is returned.
func (r *Runtime) Create(ctx context.Context, id host.ContainerID, bundle string, stdio *Stdio) (int, error) {
	pidFile := filepath.Join(bundle, "pid")
	args := []string{"create", "--bundle", bundle, "--pid-file", pidFile, "--preserve-fds", "2"}
	if stdio.console != nil {
		args = append(args, "--console-socket", stdio.console.path)
	}
	cmd := r.command(ctx, append(args, string(id))...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio.stdin, stdio.stdout, stdio.stderr
	cmd.ExtraFiles = []*os.File{stdio.exit, stdio.socket}
	if err := r.run(cmd, "create", id); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, fmt.Errorf("create container %s: %w", id, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("create container %s: read pid: %w", id, err)
	}
	return pid, nil
}

// Start lets the init of a created container run.
func (r *Runtime) Start(ctx context.Context, id host.ContainerID) error {
	return r.run(r.command(ctx, "start", string(id)), "start", id)
}

// Delete kills what is left of a container and removes it from the runtime. A
// container that does not exist is not an error.
func (r *Runtime) Delete(ctx context.Context, id host.ContainerID) error {
	err := r.run(r.command(ctx, "delete", "--force", string(id)), "delete", id)
	if errors.Is(err, host.ErrNotFound) {
		return nil
	}
	return err
}

// State is what the runtime says of a container.
type State struct {
	ID     host.ContainerID `json:"id"`
	Status string           `json:"status"` // created, running, stopped
	PID    int              `json:"pid"`
	Bundle string           `json:"bundle"`
}

// State asks for one container. Errors: host.ErrNotFound.
func (r *Runtime) State(ctx context.Context, id host.ContainerID) (State, error) {
	var out bytes.Buffer
	var state State
	cmd := r.command(ctx, "state", string(id))
	cmd.Stdout = &out
	if err := r.run(cmd, "inspect", id); err != nil {
		return state, err
	}
	if err := json.Unmarshal(out.Bytes(), &state); err != nil {
		return state, fmt.Errorf("inspect container %s: %w", id, err)
	}
	return state, nil
}

// ExecSpec is a command run in a container beside the application.
type ExecSpec struct {
	Args       []string
	Env        []string // additional
	WorkingDir string
	User       string // uid[:gid]
	TTY        bool
}

// ExecArgs is the command line that runs e in a container with the caller's
// own standard streams; its exit code is the command's.
func (r *Runtime) ExecArgs(id host.ContainerID, e ExecSpec) []string {
	args := []string{r.Path, "--root", r.Root, "exec"}
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

func (r *Runtime) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, r.Path, append([]string{"--root", r.Root, "--log-format", "json"}, args...)...)
}

// run runs a runtime command. The runtime's own message, from its log, becomes
// the error: its standard error may be the service's.
func (r *Runtime) run(cmd *exec.Cmd, verb string, id host.ContainerID) error {
	log, err := os.CreateTemp("", "torpor-runtime-")
	if err != nil {
		return fmt.Errorf("%s container %s: %w", verb, id, err)
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cmd.Args = append([]string{cmd.Args[0], "--log", log.Name()}, cmd.Args[1:]...)
	err = cmd.Run()
	if err == nil {
		return nil
	}
	message := lastMessage(log.Name())
	if message == "" {
		message = err.Error()
	}
	if strings.Contains(message, "does not exist") {
		return fmt.Errorf("%s container %s: %s: %w", verb, id, message, host.ErrNotFound)
	}
	return fmt.Errorf("%s container %s: %s", verb, id, message)
}

// lastMessage returns the last error in a runtime's JSON log.
func lastMessage(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	message := ""
	for line := range bytes.Lines(b) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			message = entry.Msg
		}
	}
	return message
}

// Signal sends a signal to the application: the process below init that is
// first. Errors: syscall.ESRCH when it is gone.
func Signal(mainPID int, signal syscall.Signal) error {
	if err := syscall.Kill(mainPID, signal); err != nil {
		return fmt.Errorf("signal process %d: %w", mainPID, err)
	}
	return nil
}
