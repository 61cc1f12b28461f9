package checkpoint

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"torpor/host"
)

// restoreConversation restores a program of testdata below a fresh init, and
// goes on talking to it there.
func restoreConversation(t *testing.T, dir string) *conversation {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	t.Cleanup(func() { out.Close() })
	tree := restoreReady(t, dir, func(cmd *exec.Cmd) { cmd.Stdin = in })
	return &conversation{testTree: tree, in: out}
}

// TestReadyBreadth restores programs that each use some part of the kernel in
// fresh namespaces, twice from the same checkpoint; they look at what they set
// up, and again after an ordinary sleep.
func TestReadyBreadth(t *testing.T) {
	program := compileC(t, "breadth")
	for _, test := range []struct{ name, refused string }{
		{"timers", ""}, {"pending", ""}, {"handlers", ""}, {"ignored trap", ""}, {"blocked trap", ""}, {"descriptors", ""}, {"shared", ""},
		{"mappings", ""}, {"growth", ""}, {"calls", "System V semaphore"}, {"forks", ""}, {"threads", ""}, {"rights", ""}, {"sysv", ""}, {"registrations", ""}, {"once", ""}, {"sealed", ""}, {"lock future", ""}, {"lock on fault", ""}, {"places", ""},
		{"record lock", "record lock"}, {"uring", "io_uring"}, {"userfault", "userfaultfd"}, {"pidfd", "pidfd"}, {"namespaced", "net namespace of its own"},
		{"destroyed", "marked to be destroyed"}, {"spent", "EPOLLONESHOT"}, {"sealed mapped", "F_SEAL_FUTURE_WRITE"}, {"no gain", "PR_SET_MDWE"}, {"dispatched", "PR_SET_SYSCALL_USER_DISPATCH"}, {"gone directory", "which no path leads to any more"},
		{"zombie", "is a zombie"}, {"stopped", "is stopped by"}, {"vforked", "waits for its vfork child"}, {"own files", "descriptors or directories of its own"},
		{"strict", "strict seccomp mode"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			c := converse(t, program, test.name, "restored")
			c.loopbackUp()
			dir := filepath.Join(t.TempDir(), "ready")
			if test.refused != "" {
				c.refusesReady(dir, test.refused)
				return
			}
			c.makeReady(dir)
			c.check() // it goes on, unharmed
			c.end()
			for range 2 {
				restored := restoreConversation(t, dir)
				restored.check()
				restored.sleep(DumpOptions{Verify: true})
				restored.wake()
				restored.check()
				restored.end()
			}
		})
	}
}

// TestReadyRights compares all that /proc shows of processes with few rights
// with what it shows of the restored ones, but their files, which are others.
func TestReadyRights(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "rights", "restored")
	dir := filepath.Join(t.TempDir(), "ready")
	c.makeReady(dir)
	c.check()
	time.Sleep(20 * time.Millisecond)
	before := c.snapshot()
	c.end()
	for range 2 {
		restored := restoreConversation(t, dir)
		restored.check()
		time.Sleep(20 * time.Millisecond)
		after := restored.snapshot()
		for _, s := range []snapshot{before, after} {
			maps.DeleteFunc(s, func(name, _ string) bool { return strings.Contains(name, " fd ") })
		}
		checkSame(t, before, after)
		restored.end()
	}
}

// refusesReady wants a refusal that names the reason and leaves nothing.
func (c *conversation) refusesReady(dir, reason string) {
	c.t.Helper()
	before := c.snapshot()
	_, err := c.tryReady(dir)
	var refusal *host.Refusal
	if !errors.As(err, &refusal) || !slices.ContainsFunc(refusal.Reasons, func(r string) bool { return strings.Contains(r, reason) }) {
		c.t.Errorf("%v, want a refusal with %q", err, reason)
	}
	for _, path := range []string{dir, dir + ".new"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			c.t.Errorf("%s is left: %v", path, err)
		}
	}
	checkSame(c.t, before, c.snapshot())
	c.check()
}
