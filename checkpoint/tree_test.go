package checkpoint

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/checkpoint/blob"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// testTree is a program below an init of its own, in namespaces of its own.
type testTree struct {
	t      *testing.T
	init   *exec.Cmd
	holder *Holder
	dir    string
	busy   bool // its threads and processes change while it does nothing
}

// startTree runs a program as a container's init would: pid, mount, network,
// IPC and UTS namespaces are new. Its output goes to the returned file.
func startTree(t *testing.T, setUp func(*exec.Cmd), args ...string) *testTree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tree := &testTree{t: t, dir: t.TempDir()}
	executable := filepath.Join(tree.dir, "init")
	if err := os.WriteFile(executable, blob.InitELF(), 0o755); err != nil {
		t.Fatal(err)
	}
	exit, err := os.OpenFile(fifo(t, filepath.Join(tree.dir, "exit")), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer exit.Close()
	socket := filepath.Join(tree.dir, "init.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	output, err := os.OpenFile(filepath.Join(tree.dir, "output"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	tree.init = exec.Command(executable, args...)
	tree.init.ExtraFiles = []*os.File{exit, file}
	tree.init.Stdout, tree.init.Stderr = output, output
	tree.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if setUp != nil {
		setUp(tree.init)
	}
	if err := tree.init.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tree.init.Process.Kill()
		tree.init.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(tree.dir, "output"))
			t.Logf("output of the program:\n%s", b)
		}
	})
	tree.holder = &Holder{PID: tree.init.Process.Pid, Socket: socket}
	return tree
}

func fifo(t *testing.T, path string) string {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// waitOutput waits until the program has written text.
func (tree *testTree) waitOutput(text string) {
	tree.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(tree.dir, "output"))
		if err == nil && containsLine(string(b), text) {
			return
		}
	}
	tree.t.Fatalf("program did not write %q", text)
}

// containsLine wants the line's end too: the program may write it apart.
func containsLine(output, line string) bool {
	return strings.HasPrefix(output, line+"\n") || strings.Contains(output, "\n"+line+"\n")
}

func (tree *testTree) sleep(o DumpOptions) *DumpReport {
	tree.t.Helper()
	report, err := tree.trySleep(o)
	if err != nil {
		tree.t.Fatalf("dump: %v", err)
	}
	return report
}

func (tree *testTree) trySleep(o DumpOptions) (*DumpReport, error) {
	o.Dir = filepath.Join(tree.dir, "checkpoint")
	o.Holder = tree.holder
	o.List = ContainerTree(tree.holder.PID)
	return Dump(o)
}

func (tree *testTree) wake() *RestoreReport {
	tree.t.Helper()
	report, err := tree.tryWake(RestoreOptions{})
	if err != nil {
		tree.t.Fatalf("restore: %v", err)
	}
	if err := tree.holder.Release(); err != nil {
		tree.t.Fatal(err)
	}
	return report
}

func (tree *testTree) tryWake(o RestoreOptions) (*RestoreReport, error) {
	dir := filepath.Join(tree.dir, "checkpoint")
	spec, err := ReadSpec(dir)
	if err != nil {
		return nil, err
	}
	stub, err := Arm(spec, ArmOptions{Holder: tree.holder, Join: tree.holder.PID})
	if err != nil {
		return nil, err
	}
	tracer := ptrace.NewTracer()
	defer tracer.Close()
	o.Commit = func() error { return Discard(dir) }
	report, err := stub.Restore(tracer, o)
	if err != nil {
		return nil, err
	}
	// The tracer is still there, and must not keep the stub from being reaped.
	return report, awaitFree(stub.PID)
}

// alive reports whether the tree has a process.
func (tree *testTree) alive() bool {
	pids, err := ContainerTree(tree.holder.PID)()
	return err == nil && len(pids) > 0 && proc.Exists(pids[0])
}

func TestSleepAndWakeOfAShell(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	tree := startTree(t, func(cmd *exec.Cmd) { cmd.Stdin = in }, "/bin/sh", "-c", `echo ready; n=0; while read line; do n=$((n+1)); echo "$n $line"; done`)
	tree.waitOutput("ready")
	for cycle := range 3 {
		report := tree.sleep(DumpOptions{Verify: true})
		t.Logf("cycle %d: wrote %d bytes, phases %v", cycle, report.WrittenBytes, report.Phases)
		if tree.alive() {
			t.Fatal("processes are still there")
		}
		woken := tree.wake()
		t.Logf("woke as %v, phases %v", woken.PIDs, woken.Phases)
		if !tree.alive() {
			t.Fatal("process is not back")
		}
		fmt.Fprintf(out, "line\n")
		tree.waitOutput(fmt.Sprintf("%d line", cycle+1))
	}
}

// TestCounting shows that a running computation goes on where it was.
func TestCounting(t *testing.T) {
	tree := startTree(t, nil, "/usr/bin/python3", "-u", "-c", `
import time, os
data = os.urandom(1<<20)*8
import hashlib
want = hashlib.sha256(data).hexdigest()
print("ready")
n = 0
while True:
    n += 1
    time.sleep(0.01)
    assert hashlib.sha256(data).hexdigest() == want
    print("count", n)
`)
	tree.waitOutput("ready")
	for cycle := range 5 {
		tree.waitOutput(fmt.Sprintf("count %d", 3+cycle*5))
		tree.sleep(DumpOptions{Verify: true})
		time.Sleep(20 * time.Millisecond)
		tree.wake()
	}
	tree.waitOutput("count 40")
}

// newTracer returns a tracer that ends with the test.
func newTracer(t *testing.T) *ptrace.Tracer {
	tracer := ptrace.NewTracer()
	t.Cleanup(tracer.Close)
	return tracer
}
