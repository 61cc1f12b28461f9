package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

// machine is one torpor installation: a daemon, its keeper and its directories.
type machine struct {
	t           *testing.T
	dir         string
	program     string // the torpor that is installed
	project     string // unique on this machine
	projects    []string
	daemon      *exec.Cmd
	daemonEnded chan error
	daemonLog   *bytes.Buffer
}

// patience bounds everything that is waited for; nothing is timed.
const patience = 60 * time.Second

func newMachine(t *testing.T) *machine {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.MntNS, kerneltest.Ptrace, kerneltest.Runc, kerneltest.Program("python3"))
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, program: program, project: fmt.Sprintf("e2e%d%s", os.Getpid(), strings.ToLower(filepath.Base(dir)))}
	t.Cleanup(m.end)
	m.serve()
	return m
}

func (m *machine) state() string { return filepath.Join(m.dir, "state") }
func (m *machine) run() string   { return filepath.Join(m.dir, "run") }

func (m *machine) env() []string {
	return append(os.Environ(), "TORPOR_STATE_DIR="+m.state(), "TORPOR_RUN_DIR="+m.run(), "TORPOR_SOCKET=", "NOTIFY_SOCKET=", "COMPOSE_PROJECT_NAME=")
}

// serve starts the daemon and waits until it answers.
func (m *machine) serve() {
	m.t.Helper()
	m.daemon, m.daemonLog, m.daemonEnded = exec.Command(m.program, "serve"), &bytes.Buffer{}, make(chan error, 1)
	m.daemon.Env, m.daemon.Stdout, m.daemon.Stderr = m.env(), m.daemonLog, m.daemonLog
	m.daemon.WaitDelay = time.Second
	if err := m.daemon.Start(); err != nil {
		m.t.Fatal(err)
	}
	daemon, ended := m.daemon, m.daemonEnded
	go func() { ended <- daemon.Wait() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", filepath.Join(m.run(), "torpor.sock"))
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-m.daemonEnded:
			m.daemon = nil
			m.t.Fatalf("daemon ended: %v\n%s", err, m.daemonLog)
		default:
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("daemon does not answer: %v\n%s", err, m.daemonLog)
		}
	}
}

// stopDaemon ends the daemon by a signal and waits for its end.
func (m *machine) stopDaemon(signal syscall.Signal) {
	m.t.Helper()
	if m.daemon == nil {
		return
	}
	if err := m.daemon.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.t.Error(err)
	}
	select {
	case <-m.daemonEnded:
	case <-time.After(patience):
		m.t.Fatalf("daemon does not end\n%s", m.daemonLog)
	}
	if m.t.Failed() {
		m.t.Logf("daemon said:\n%s", m.daemonLog)
	}
	m.daemon = nil
}

// processes lists those of this torpor whose first argument is verb.
func (m *machine) processes(verb string) []int {
	var pids []int
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		exe, _ := os.Readlink(entry + "/exe")
		cmdline, _ := os.ReadFile(entry + "/cmdline")
		args := strings.Split(string(cmdline), "\x00")
		ours := strings.HasPrefix(filepath.Base(exe), filepath.Base(program))
		if ours && len(args) > 1 && args[1] == verb && strings.Contains(string(cmdline)+string(environ(entry)), m.dir) {
			pid, _ := strconv.Atoi(filepath.Base(entry))
			pids = append(pids, pid)
		}
	}
	return pids
}

func environ(entry string) []byte {
	b, _ := os.ReadFile(entry + "/environ")
	return b
}

// end removes every project, ends the processes and looks for leftovers.
func (m *machine) end() {
	if m.daemon == nil {
		m.serve()
	}
	for _, project := range m.projects {
		if r := m.torpor("down", "-v", "-p", project, "-t", "1"); r.code != 0 && r.code != 5 {
			m.t.Errorf("down %s: %s", project, r)
		}
	}
	m.leftovers()
	m.stopDaemon(syscall.SIGTERM)
	for _, verb := range []string{"keeper", "volume"} {
		for _, pid := range m.processes(verb) {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				m.t.Error(err)
			}
		}
		m.eventually(verb+" ends", func() error {
			if pids := m.processes(verb); len(pids) > 0 {
				return fmt.Errorf("processes %v", pids)
			}
			return nil
		})
	}
	for _, path := range []string{filepath.Join(m.run(), "secrets")} {
		_ = syscall.Unmount(path, syscall.MNT_DETACH)
	}
	if err := os.RemoveAll(m.dir); err != nil {
		m.t.Error(err)
	}
}

// leftovers fails the test for anything of a removed service that is there.
func (m *machine) leftovers() {
	var found []string
	for _, pattern := range []string{
		filepath.Join(m.state(), "services", "*"), filepath.Join(m.state(), "volumes", m.project+"*"), filepath.Join(m.state(), "removing", "*"),
		filepath.Join(m.state(), "logs", "*"),
		filepath.Join(m.run(), "secrets", "*"), filepath.Join(m.run(), "runtime", "*"), "/run/netns/torpor-" + m.project + "*",
		"/sys/fs/cgroup/*/torpor/" + m.project + "*", "/sys/fs/cgroup/torpor/" + m.project + "*",
	} {
		names, _ := filepath.Glob(pattern)
		found = append(found, names...)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, m.dir+"/state/services") || strings.Contains(line, m.dir+"/state/logs") || strings.Contains(line, m.dir+"/run/volumes") {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	for _, device := range loopsOf(m.dir, m.project) {
		found = append(found, "loop device "+device)
	}
	links, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		m.t.Error(err)
	}
	for line := range strings.Lines(string(links)) {
		if strings.Contains(line, ": tp-") || strings.Contains(line, ": tv-") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	if len(found) > 0 {
		m.t.Errorf("left behind:\n\t%s", strings.Join(found, "\n\t"))
	}
}

// loopsOf lists loop devices with a backing file in whose path one of the words is.
func loopsOf(words ...string) []string {
	var found []string
	backings, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, backing := range backings {
		b, _ := os.ReadFile(backing)
		if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(string(b), word) }) {
			found = append(found, "/dev/"+strings.Split(backing, "/")[3])
		}
	}
	return found
}

// result is what a command line did.
type result struct {
	args           []string
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("torpor %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// command is torpor with arguments, in the directory of the compose file.
func (m *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.program, args...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = m.env(), m.dir, time.Second
	return cmd
}

// torpor runs a command line to its end.
func (m *machine) torpor(args ...string) result {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := m.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("torpor %s: %v", args, err)
	}
	return result{args: args, code: cmd.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String()}
}

// must is torpor that has to end with 0; it returns its output.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	r := m.torpor(args...)
	if r.code != 0 {
		m.t.Fatalf("%s\ndaemon: %s", r, m.daemonLog)
	}
	return r.stdout
}

// compose writes the compose file of the current directory; PROJECT in it is
// the project's unique name.
func (m *machine) compose(text string) {
	m.t.Helper()
	if !slices.Contains(m.projects, m.project) {
		m.projects = append(m.projects, m.project)
	}
	text = "name: " + m.project + "\n" + strings.ReplaceAll(text, "PROJECT", m.project)
	if err := os.WriteFile(filepath.Join(m.dir, "compose.yaml"), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// file writes a file beside the compose file.
func (m *machine) file(name, content string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// service is a line of ps --json.
type service struct {
	ID                   string        `json:"id"`
	Service              string        `json:"service"`
	State                string        `json:"state"`
	Reason               string        `json:"reason"`
	Health               string        `json:"health"`
	Ports                []string      `json:"ports"`
	Address              string        `json:"address"`
	MainPID              int           `json:"main_pid"`
	MemoryBytes          int64         `json:"memory_bytes"`
	ReturnedBytes        int64         `json:"returned_bytes"`
	ConnectionsHeld      int           `json:"connections_held"`
	ConnectionsSuspended int           `json:"connections_suspended"`
	ConnectionsParkedWhy string        `json:"connections_parked_why"`
	Cycles               int           `json:"cycles"`
	LastWake             time.Duration `json:"last_wake_ns"`
	ExitCode             int           `json:"exit_code"`
	Restarts             int           `json:"restarts"`
	ColdStart            time.Duration `json:"cold_start_ns"`
	ReadyStart           time.Duration `json:"ready_start_ns"`
	Shared               []string      `json:"shared"`
}

// all lists the containers of the project.
func (m *machine) all() []service {
	m.t.Helper()
	var all []service
	out := m.must("ps", "-a", "--json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		m.t.Fatalf("ps --json: %v\n%s", err, out)
	}
	return all
}

// ps returns the services of the project.
func (m *machine) ps() map[string]service {
	m.t.Helper()
	byName := map[string]service{}
	for _, s := range m.all() {
		byName[s.Service] = s
	}
	return byName
}

// eventually waits until f has no complaint.
func (m *machine) eventually(what string, f func() error) {
	m.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	m.t.Fatalf("%s: not within %s: %v\ndaemon: %s", what, patience, err, m.daemonLog)
}

// awaitState waits until a service is in a state.
func (m *machine) awaitState(name, state string) service {
	m.t.Helper()
	var s service
	m.eventually(name+" becomes "+state, func() error {
		if s = m.ps()[name]; s.State != state {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
	return s
}

// install has the next daemon be another binary than the last.
func (m *machine) install(name string) {
	m.t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		m.t.Fatal(err)
	}
	m.program = m.file(name, string(append(b, 0))) // what follows the sections is not looked at
}
