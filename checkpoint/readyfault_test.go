package checkpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"torpor/host"
	"torpor/kernel/proc"
)

// Steps at which a ready checkpoint and its restore are interrupted.
var (
	readySteps        = []string{"freeze", "quiet", "collect", "slots", "write", "objects", "random", "files", "sync", "sum", "commit"}
	restoreReadySteps = []string{"seize", "script", "tasks", "verify", "renew", "registers", "spare", "detach"}
)

// TestKilledReady kills whoever makes a ready checkpoint at every step: the
// tree goes on, what is left is never taken for a checkpoint, and the next one
// is made.
func TestKilledReady(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "descriptors")
	dir := filepath.Join(t.TempDir(), "ready")
	for _, step := range readySteps {
		c.killHelper("ready", step, dir)
		c.check()
		if _, err := ReadReady(dir, testKey); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("killed at %s: %v", step, err)
		}
	}
	c.makeReady(dir)
	before, err := ReadReady(dir, testKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range readySteps { // the old one stays
		c.killHelper("ready", step, dir)
		c.check()
		if now, err := ReadReady(dir, testKey); err != nil || !now.Created.Equal(before.Created) {
			t.Errorf("killed at %s with an older one: %v", step, err)
		}
	}
	c.makeReady(dir)
	c.end()
	restoreConversation(t, dir).check()
}

// TestKilledRestoreReady kills whoever restores at every step: what is left is
// all of the tree, which runs, or nothing of it.
func TestKilledRestoreReady(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "forks")
	dir := filepath.Join(t.TempDir(), "ready")
	c.makeReady(dir)
	spec, err := ReadReady(dir, testKey)
	if err != nil {
		t.Fatal(err)
	}
	c.end()
	in, out, err := os.Pipe() // a program whose input ends would end
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	for _, step := range restoreReadySteps {
		tree := startTree(t, func(cmd *exec.Cmd) { cmd.Stdin = in })
		tree.loopbackUp()
		tree.killHelper("restore-ready", step, dir)
		pids, err := ContainerTree(tree.holder.PID)()
		if err != nil {
			t.Fatal(err)
		}
		alive := 0
		for _, pid := range pids {
			if status, err := proc.ReadStatus(pid, pid); err == nil && status.Name != StubName && proc.Alive(pid) {
				alive++
			}
		}
		if want := len(spec.Processes); alive != 0 && alive != want || (alive == want) != (step == "spare" || step == "detach") {
			t.Errorf("killed at %s: %d of %d processes are left", step, alive, len(spec.Processes))
		}
		t.Logf("killed at %s: %d processes run", step, alive)
		tree.end()
	}
	restoreConversation(t, dir).check()
}

// TestReadyFullDisk leaves nothing but a tree that goes on.
func TestReadyFullDisk(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			c := converse(t, compileC(t, "breadth"), "mappings") // 8 MB
			small := filepath.Join(t.TempDir(), "small")
			c.mountSmall(kind, small, 5)
			dir := filepath.Join(small, "ready")
			for range 2 {
				if _, err := c.tryReady(dir); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%v, want ENOSPC", err)
				}
				for _, path := range []string{dir, dir + ".new"} {
					if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s is left: %v", path, err)
					}
				}
				c.check()
			}
		})
	}
}
