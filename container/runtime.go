package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// Kill sends a signal to the container's init, or to every process in its
// cgroup. Errors: host.ErrNotFound.
func (r *Runtime) Kill(ctx context.Context, id host.ContainerID, signal syscall.Signal, all bool) error {
	args := []string{"kill"}
	if all {
		args = append(args, "--all")
	}
	return r.run(r.command(ctx, append(args, string(id), strconv.Itoa(int(signal)))...), "signal", id)
}

// Delete kills what is left of a container and removes it from the runtime. A
// container that does not exist is not an error.
func (r *Runtime) Delete(ctx context.Context, id host.ContainerID) error {
	// Where runtimes keep what they know of a container: nothing there, nothing
	// to do, which saves a start of the runtime, 15 ms, in every start of a service.
	if _, err := os.Lstat(filepath.Join(r.Root, string(id))); errors.Is(err, os.ErrNotExist) {
		return nil
	}
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

func (r *Runtime) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, r.Path, append([]string{"--root", r.Root, "--log-format", "json"}, args...)...)
}

// run runs a runtime command. The runtime's own message, from its log, becomes
// the error: its standard error may be the service's.
func (r *Runtime) run(cmd *exec.Cmd, verb string, id host.ContainerID) error {
	message, err := r.logged(cmd)
	if err == nil {
		return nil
	}
	if message == "" {
		return fmt.Errorf("%s container %s: %w", verb, id, err)
	}
	if kind := kindOf(message); kind != nil {
		return fmt.Errorf("%s container %s: %s: %w", verb, id, message, kind)
	}
	return fmt.Errorf("%s container %s: %s", verb, id, message)
}

// logged runs a command and returns the last error of its log.
func (r *Runtime) logged(cmd *exec.Cmd) (string, error) {
	log, err := os.CreateTemp(filepath.Dir(r.Root), "torpor-runtime-") // where the daemon removes what a killed one left
	if err != nil {
		return "", err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cmd.Args = append([]string{cmd.Args[0], "--log", log.Name()}, cmd.Args[1:]...)
	err = cmd.Run()
	if err == nil {
		return "", nil
	}
	return lastMessage(log), err
}

// kindOf reads runc's and crun's words for a container that is not there, or
// there already.
func kindOf(message string) error {
	switch {
	case strings.Contains(message, "container does not exist"),
		strings.Contains(message, "error opening file") && strings.Contains(message, "/status`"):
		return host.ErrNotFound
	case strings.Contains(message, "given ID already exists"), strings.Contains(message, "already exists"):
		return host.ErrExists
	}
	return nil
}

// lastMessage returns the last error in a runtime's JSON log.
func lastMessage(log io.Reader) string {
	message := ""
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
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
