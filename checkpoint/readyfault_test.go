package checkpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
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
	for _, step := range readySteps { // the old one stays, until the new one has its name
		c.killHelper("ready", step, dir)
		c.check()
		if now, err := ReadReady(dir, testKey); err != nil || !now.Created.Equal(before.Created) {
			t.Errorf("killed at %s with an older one: %v", step, err)
		}
	}
	c.killHelper("ready", "replace", dir)
	c.check()
	if now, err := ReadReady(dir, testKey); err != nil || !now.Created.After(before.Created) {
		t.Errorf("killed at replace: %v", err)
	}
	c.makeReady(dir)
	c.end()
	restoreConversation(t, dir).check()
}

// TestFailingReady checks that an older checkpoint outlives every failure to
// make a new one, and can be restored whenever it is looked at.
func TestFailingReady(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "descriptors")
	dir := filepath.Join(t.TempDir(), "ready")
	c.makeReady(dir)
	before, err := ReadReady(dir, testKey)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Add(1)
	go func() { // there is one at every moment
		defer watch.Done()
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := os.Lstat(filepath.Join(dir, metaName)); err != nil {
					t.Errorf("there is no checkpoint: %v", err)
					return
				}
			}
		}
	}()
	for _, step := range readySteps {
		if _, err := c.tryReadyAt(dir, failAt(step)); !errors.Is(err, errAsked) {
			t.Errorf("at %s: %v", step, err)
		}
		if now, err := ReadReady(dir, testKey); err != nil || !now.Created.Equal(before.Created) {
			t.Errorf("failed at %s: %v", step, err)
		}
		if _, err := os.Lstat(dir + ".new"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("failed at %s: what was begun is left: %v", step, err)
		}
		c.check()
	}
	for range 20 {
		if _, err := c.tryReadyAt(dir, failAt("replace")); err != nil { // too late to fail
			t.Error(err)
		}
	}
	close(stop)
	watch.Wait()
	if now, err := ReadReady(dir, testKey); err != nil || !now.Created.After(before.Created) {
		t.Errorf("replaced: %v", err)
	}
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

// TestReadyFullDiskLate fills the disk at each step behind the first, where an
// older checkpoint is there: it stays what it was.
func TestReadyFullDiskLate(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "descriptors")
	small := filepath.Join(t.TempDir(), "small")
	c.mountSmall("tmpfs", small, 20)
	dir, hog := filepath.Join(small, "ready"), filepath.Join(small, "hog")
	c.makeReady(dir)
	before, err := ReadReady(dir, testKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"slots", "write", "random", "sum"} {
		_, err := c.tryReadyAt(dir, func(at string) error {
			if at == step {
				fillDisk(t, hog)
			}
			return nil
		})
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("full behind %s: %v, want ENOSPC", step, err)
		}
		if err := os.Remove(hog); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(dir + ".new"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("full behind %s: what was begun is left: %v", step, err)
		}
		if now, err := ReadReady(dir, testKey); err != nil || !now.Created.Equal(before.Created) {
			t.Errorf("full behind %s: %v", step, err)
		}
		c.check()
	}
	if err := CheckReady(dir, testKey); err != nil {
		t.Error(err)
	}
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
