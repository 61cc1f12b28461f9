package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
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
	result := &CRIUResult{Version: criuVersion(ctx, o.CRIU)}
	if err := result.measure(ctx, o, mb); err != nil {
		result.Problem = err.Error()
	}
	return result
}

func criuVersion(ctx context.Context, criu string) string {
	version, err := exec.CommandContext(ctx, criu, "--version").Output()
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(version), "\n")
	return strings.TrimPrefix(first, "Version: ")
}

// criuRun is a program that CRIU dumps and restores again and again, under the
// same pid, in this process's namespaces.
type criuRun struct {
	criu string
	dir  string
	pid  int

	program *program
	address string
	// dumped says that pid is nobody's, or another process's by now.
	dumped bool
}

func (r *CRIUResult) measure(ctx context.Context, o WakeOptions, mb int) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-criu-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	run, stop, err := startForCRIU(o, dir, &programs("", o.Program, mb)[0])
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
		if err := run.request(); err != nil {
			return err
		}
		if i > 0 {
			running, answered, sleeps = append(running, restored), append(answered, time.Since(begun)), append(sleeps, slept)
		}
	}
	r.Running, r.FirstByte, r.Sleep = running.Summary(), answered.Summary(), sleeps.Summary()
	return nil
}

// startForCRIU runs a program in a session of its own, without descriptors of
// ours. The caller calls stop.
func startForCRIU(o WakeOptions, dir string, p *program) (*criuRun, func() error, error) {
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	args, err := p.args(port, dir)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	run := &criuRun{criu: o.CRIU, dir: dir, pid: cmd.Process.Pid, program: p, address: fmt.Sprintf("127.0.0.1:%d", port)}
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
	if err := run.request(); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return run, stop, nil
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

// request asks on a connection of its own, until there is an answer.
func (r *criuRun) request() error {
	return r.program.answered(func() (net.Conn, error) { return net.Dial("tcp4", r.address) })
}

// criuStarts measures restores of one dump, again and again; what fails is part
// of the result.
func criuStarts(ctx context.Context, o ReadyOptions, p *program) *CRIUResult {
	result := &CRIUResult{Version: criuVersion(ctx, o.CRIU)}
	if err := result.measureStarts(ctx, o, p); err != nil {
		result.Problem = err.Error()
	}
	return result
}

func (r *CRIUResult) measureStarts(ctx context.Context, o ReadyOptions, p *program) (err error) {
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-criu-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	run, stop, err := startForCRIU(o.WakeOptions, dir, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if _, err := run.timed(ctx, "dump", "--tree", fmt.Sprint(run.pid), "--tcp-close"); err != nil {
		return err
	}
	var running, answered Sample
	for range o.Cycles {
		begun := time.Now()
		restored, err := run.timed(ctx, "restore", "--restore-detached", "--tcp-close")
		if err != nil {
			return err
		}
		err = run.request()
		answered, running = append(answered, time.Since(begun)), append(running, restored)
		if err := errors.Join(err, run.kill()); err != nil {
			return err
		}
	}
	r.Running, r.FirstByte = running.Summary(), answered.Summary()
	return nil
}

// kill ends what was restored; it is the machine's init that reaps it.
func (r *criuRun) kill() error {
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill what criu restored: %w", err)
	}
	r.dumped = true
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(r.pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("kill what criu restored: process %d is not reaped", r.pid)
		}
	}
	return nil
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
