package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// CRIUResult are the figures of CRIU for the same program and heap. CRIU has
// the easier task: no connection is open, and the images stay in the page
// cache. It always restores the whole heap and dumps it whole again.
type CRIUResult struct {
	Version   string  `json:"version"`
	Running   Summary `json:"running"`        // `criu restore` begun to its return
	FirstByte Summary `json:"first_response"` // `criu restore` begun to the answer on a new connection
	Sleep     Summary `json:"sleep"`          // `criu dump`
	// Problem says why there are no figures: CRIU is there and fails.
	Problem string `json:"problem,omitempty"`
}

// criuCase measures CRIU; what fails is part of the result.
func criuCase(ctx context.Context, o WakeOptions, mb int) *CRIUResult {
	version, err := exec.CommandContext(ctx, o.CRIU, "--version").Output()
	if err != nil {
		return &CRIUResult{Problem: fmt.Sprintf("ask for its version: %v", err)}
	}
	first, _, _ := strings.Cut(string(version), "\n")
	result := &CRIUResult{Version: strings.TrimPrefix(first, "Version: ")}
	if err := result.measure(ctx, o, mb); err != nil {
		result.Problem = err.Error()
	}
	return result
}

// criuRun is a program that CRIU dumps and restores again and again, under the
// same pid, in this process's namespaces.
type criuRun struct {
	criu string
	dir  string
	pid  int
	url  string
	// dumped says that pid is nobody's, or another process's by now.
	dumped bool
}

func (r *CRIUResult) measure(ctx context.Context, o WakeOptions, mb int) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-criu-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	run, stop, err := startForCRIU(ctx, o, dir, mb)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var running, answered, sleeps Sample
	for i := range o.Cycles + 1 {
		slept, err := run.timed(ctx, "dump", "--tree", fmt.Sprint(run.pid))
		if err != nil {
			return err
		}
		begun := time.Now()
		restored, err := run.timed(ctx, "restore", "--restore-detached")
		if err != nil {
			return err
		}
		if err := run.request(ctx); err != nil {
			return err
		}
		if i > 0 {
			running, answered, sleeps = append(running, restored), append(answered, time.Since(begun)), append(sleeps, slept)
		}
	}
	r.Running, r.FirstByte, r.Sleep = running.Summary(), answered.Summary(), sleeps.Summary()
	return nil
}

// startForCRIU runs the program in a session of its own, without descriptors
// of ours. The caller calls stop.
func startForCRIU(ctx context.Context, o WakeOptions, dir string, mb int) (*criuRun, func() error, error) {
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(o.Program, "-c", server, fmt.Sprint(mb), fmt.Sprint(port))
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start python: %w", err)
	}
	run := &criuRun{criu: o.CRIU, dir: dir, pid: cmd.Process.Pid, url: fmt.Sprintf("http://127.0.0.1:%d/", port)}
	// Wait takes the exit of the first dump's kill: the pid must be free for
	// the restore, whose process is not our child.
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		_ = cmd.Wait() // killed by a dump or by stop
	}()
	stop := func() error {
		var err error
		if !run.dumped {
			err = syscall.Kill(run.pid, syscall.SIGKILL)
		}
		<-reaped
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := run.request(ctx)
		if err == nil {
			return run, stop, nil
		}
		if time.Now().After(deadline) {
			return nil, nil, errors.Join(err, stop())
		}
	}
}

// timed runs a command of CRIU.
func (r *criuRun) timed(ctx context.Context, command string, args ...string) (time.Duration, error) {
	log := command + ".log"
	cmd := exec.CommandContext(ctx, r.criu, append([]string{command, "--images-dir", r.dir, "--log-file", log}, args...)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("criu %s: %w: %s", command, err, lastError(filepath.Join(r.dir, log), output.String()))
	}
	took := time.Since(begun)
	r.dumped = command == "dump"
	if r.dumped {
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(r.pid, 0) == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				return 0, fmt.Errorf("criu dump: process %d is not reaped", r.pid)
			}
		}
	}
	return took, nil
}

var criuError = regexp.MustCompile(`(?m)^.*Error .*$`)

// lastError is the last line of CRIU's log that tells of an error.
func lastError(path, output string) string {
	b, err := os.ReadFile(path)
	if lines := criuError.FindAllString(string(b), -1); err == nil && len(lines) > 0 {
		return strings.TrimSpace(lines[len(lines)-1])
	}
	return strings.TrimSpace(output)
}

// request asks on a connection of its own.
func (r *criuRun) request(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && string(body) != "awake\n" {
		err = fmt.Errorf("read answer: got %q", body)
	}
	return err
}

// freePort finds a TCP port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
