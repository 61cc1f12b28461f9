package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/host"
	"torpor/kernel/proc"
)

// The steps after which a hook is called.
var (
	dumpSteps    = []string{"freeze", "collect", "slots", "write", "park", "commit", "kill"}
	restoreSteps = []string{"seize", "script", "tasks", "verify", "renew", "registers", "spare", "commit", "detach"}
)

// failAt makes the hook that fails at a step.
func failAt(step string) func(string) error {
	return func(at string) error {
		if at == step {
			return errAsked
		}
		return nil
	}
}

// TestFailingDump checks that the tree runs on until the commit, and sleeps
// from then on.
func TestFailingDump(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "forks")
	c.check() // it has a child now
	for _, step := range dumpSteps {
		before := c.snapshot()
		_, err := c.trySleep(DumpOptions{At: failAt(step)})
		if step == "kill" {
			if err != nil || c.alive() {
				t.Fatalf("behind the commit: %v, alive %v", err, c.alive())
			}
			c.wake()
		} else if !errors.Is(err, errAsked) {
			t.Fatalf("at %s: %v", step, err)
		}
		if _, err := ReadSpec(filepath.Join(c.dir, "checkpoint")); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("at %s: a checkpoint is left: %v", step, err)
		}
		checkSame(t, before, c.snapshot())
		c.check()
	}
}

// TestFailingRestore checks that a checkpoint can be restored after a restore
// that failed.
func TestFailingRestore(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "threads")
	for _, step := range restoreSteps {
		before := c.snapshot()
		c.sleep(DumpOptions{Verify: true})
		for range 2 {
			_, err := c.tryWake(RestoreOptions{At: failAt(step)})
			if committed := step == "commit" || step == "detach"; committed && err == nil {
				break
			}
			if !errors.Is(err, errAsked) || c.alive() {
				t.Fatalf("at %s: %v, alive %v", step, err, c.alive())
			}
		}
		if !c.alive() {
			c.wake()
		}
		checkSame(t, before, c.snapshot())
		c.check()
	}
}

// TestFailingCommit checks the same for the caller's own part.
func TestFailingCommit(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "forks")
	c.sleep(DumpOptions{})
	spec, err := ReadSpec(filepath.Join(c.dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	stub, err := Arm(spec, ArmOptions{Holder: c.holder, Join: c.holder.PID})
	if err != nil {
		t.Fatal(err)
	}
	tracer := newTracer(t)
	if _, err := stub.Restore(tracer, RestoreOptions{Commit: func() error { return errAsked }}); !errors.Is(err, errAsked) || c.alive() {
		t.Fatalf("restore: %v, alive %v", err, c.alive())
	}
	c.wake()
	c.check()
}

// TestKilledBeforeDetach kills the tree when it is whole and still traced. What
// is left must not stay a zombie of the tracer, which is kept: the namespace's
// init could not end.
func TestKilledBeforeDetach(t *testing.T) {
	for _, name := range []string{"threads", "forks"} {
		t.Run(name, func(t *testing.T) {
			c := converse(t, compileC(t, "breadth"), name)
			c.check()
			c.sleep(DumpOptions{})
			spec, err := ReadSpec(filepath.Join(c.dir, "checkpoint"))
			if err != nil {
				t.Fatal(err)
			}
			stub, err := Arm(spec, ArmOptions{Holder: c.holder, Join: c.holder.PID})
			if err != nil {
				t.Fatal(err)
			}
			var pids []int
			at := func(step string) error {
				if step != "commit" {
					return nil
				}
				if pids, err = ContainerTree(c.holder.PID)(); err != nil {
					return err
				}
				for _, pid := range pids {
					_ = syscall.Kill(pid, syscall.SIGKILL) // the stub may have ended
				}
				return nil
			}
			begun := time.Now()
			if _, err := stub.Restore(newTracer(t), RestoreOptions{At: at}); err != nil {
				t.Errorf("restore: %v", err)
			}
			t.Logf("%d processes, %s", len(pids), time.Since(begun))
			for _, pid := range pids {
				if err := awaitFree(pid); err != nil {
					t.Error(err)
				}
			}
			if err := syscall.Kill(c.holder.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.init.Wait() }()
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Error("the init does not end")
			}
		})
	}
}

// TestStuckRestore checks that a script without an end has one.
func TestStuckRestore(t *testing.T) {
	defer func(was time.Duration) { restoreLimit = was }(restoreLimit)
	restoreLimit = 300 * time.Millisecond
	c := converse(t, compileC(t, "breadth"), "rights")
	c.sleep(DumpOptions{})
	spec, err := ReadSpec(filepath.Join(c.dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range spec.Processes { // everyone waits for the group of another
		spec.Processes[i].Group = spec.Processes[(i+1)%len(spec.Processes)].PID
	}
	stub, err := Arm(spec, ArmOptions{Holder: c.holder, Join: c.holder.PID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stub.Restore(newTracer(t), RestoreOptions{}); err == nil || !strings.Contains(err.Error(), "threads ready") || c.alive() {
		t.Fatalf("restore: %v, alive %v", err, c.alive())
	}
	c.wake()
	c.check()
}

// TestKilledTracer kills the process that dumps or restores at every step. By
// the rule that spare states, the tree then runs or can be restored.
func TestKilledTracer(t *testing.T) {
	program := compileC(t, "breadth")
	for _, name := range []string{"forks", "threads", "descriptors"} {
		t.Run(name, func(t *testing.T) {
			c := converse(t, program, name)
			c.check()
			for _, step := range dumpSteps {
				c.killHelper("dump", step)
				t.Logf("dump killed at %s: %s", step, c.recoverTree())
				c.check()
			}
			for _, step := range restoreSteps {
				c.sleep(DumpOptions{Verify: true})
				c.killHelper("restore", step)
				t.Logf("restore killed at %s: %s", step, c.recoverTree())
				c.check()
			}
		})
	}
}

// killHelper runs a process that dumps or restores and dies at step.
func (tree *testTree) killHelper(what, step string, more ...string) {
	tree.t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{helperArg, what, step, tree.dir, fmt.Sprint(tree.holder.PID), tree.holder.Socket}, more...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		tree.t.Fatalf("helper: %v\n%s", err, out)
	}
}

// recoverTree does what whoever finds the tree does.
func (c *conversation) recoverTree() string {
	c.t.Helper()
	dir := filepath.Join(c.dir, "checkpoint")
	var alive []int
	pids, err := ContainerTree(c.holder.PID)()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, pid := range pids {
		status, err := proc.ReadStatus(pid, pid)
		switch {
		case err != nil || !proc.Alive(pid):
		case status.Name == StubName:
			syscall.Kill(pid, syscall.SIGKILL)
		default:
			alive = append(alive, status.NSPIDs[len(status.NSPIDs)-1])
		}
	}
	spec, err := ReadSpec(dir)
	if errors.Is(err, host.ErrNotFound) {
		if err := c.holder.Release(); err != nil {
			c.t.Fatal(err)
		}
		return "it runs"
	}
	if err != nil {
		c.t.Fatal(err)
	}
	whole := !slices.ContainsFunc(spec.Processes, func(p ProcessSpec) bool { return !slices.Contains(alive, p.PID) })
	if whole {
		if err := errors.Join(Discard(dir), c.holder.Release()); err != nil {
			c.t.Fatal(err)
		}
		return "it runs beside a checkpoint"
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range pids {
		if err := awaitFree(pid); err != nil {
			c.t.Fatal(err)
		}
	}
	c.wake()
	return "it was restored"
}

// TestFullDisk checks that a tree whose checkpoint does not fit runs on.
func TestFullDisk(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			c := converse(t, compileC(t, "breadth"), "mappings") // 8 MB
			dir := filepath.Join(c.dir, "checkpoint")
			c.mountSmall(kind, dir, 5)
			for range 2 {
				_, err := c.trySleep(DumpOptions{})
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("dump: %v, want ENOSPC", err)
				}
				t.Log(err)
				var st syscall.Statfs_t
				if err := syscall.Statfs(dir, &st); err != nil || st.Bfree < st.Blocks/2 {
					t.Errorf("%d of %d blocks are free after it (%v)", st.Bfree, st.Blocks, err)
				}
				c.check()
			}
			// What is mapped from the image already must not be hurt either.
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			c.mountSmall(kind, dir, 40)
			for range 3 {
				c.sleep(DumpOptions{Verify: true})
				c.wake()
				c.check() // writes to 1 MB and more
				hog := filepath.Join(dir, "hog")
				fillDisk(t, hog)
				if _, err := c.trySleep(DumpOptions{}); !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("dump: %v, want ENOSPC", err)
				}
				c.check()
				if err := os.Remove(hog); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// mountSmall mounts a file system of some megabytes.
func (c *conversation) mountSmall(kind, dir string, megabytes int) {
	c.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	args := []string{"-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", megabytes), "tmpfs", dir}
	if kind == "ext4" {
		image := filepath.Join(c.t.TempDir(), "image")
		run(c.t, "truncate", "-s", fmt.Sprintf("%dM", megabytes), image)
		run(c.t, "mkfs.ext4", "-q", "-O", "^has_journal", image)
		args = []string{"-o", "loop", image, dir}
	}
	run(c.t, "mount", args...)
	c.t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(needProgram(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// fillDisk writes until there is no space left.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 1<<20); len(b) > 0; {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
}
