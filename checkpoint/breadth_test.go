package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"torpor/host"
)

// compiled holds the C programs of this run, by source and arguments.
var compiled = struct {
	sync.Mutex
	dir  string
	done map[string]string
}{done: map[string]string{}}

// compileC compiles testdata/NAME.c once and returns the program's path.
func compileC(t *testing.T, name string) string {
	t.Helper()
	gcc := needProgram(t, "gcc")
	compiled.Lock()
	defer compiled.Unlock()
	if path := compiled.done[name]; path != "" {
		return path
	}
	if compiled.dir == "" {
		var err error
		if compiled.dir, err = os.MkdirTemp("", "torpor-checkpoint-"); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(compiled.dir, name)
	cmd := exec.Command(gcc, "-Wall", "-Wno-unused-result", "-O1", "-pthread", "-o", path, filepath.Join("testdata", name+".c"))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	compiled.done[name] = path
	return path
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == helperArg {
		os.Exit(helper(os.Args[2:]))
	}
	code := m.Run()
	if compiled.dir != "" {
		os.RemoveAll(compiled.dir)
	}
	os.Exit(code)
}

// conversation is a C program of testdata that is told when to look.
type conversation struct {
	*testTree
	in   io.Writer
	said int // lines read so far
}

func converse(t *testing.T, args ...string) *conversation {
	t.Helper()
	return converseWith(t, nil, args...)
}

func converseWith(t *testing.T, setUp func(*exec.Cmd), args ...string) *conversation {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	t.Cleanup(func() { out.Close() })
	tree := startTree(t, func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Dir = in, t.TempDir()
		if setUp != nil {
			setUp(cmd)
		}
	}, args...)
	c := &conversation{testTree: tree, in: out}
	c.expect("ready")
	return c
}

// expect waits for the program's next word.
func (c *conversation) expect(want string) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(c.dir, "output"))
		if err != nil {
			c.t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		for ; c.said < len(lines)-1; c.said++ {
			switch line := lines[c.said]; {
			case line == want:
				c.said++
				return
			case line == "failed" || strings.Contains(line, "can not set up"):
				c.t.Fatalf("program says:\n%s", b)
			}
		}
		if c.said > 0 && !c.alive() {
			c.t.Fatalf("program ended with %x, its output is:\n%s", c.exitReport(), b)
		}
	}
	c.t.Fatalf("program does not say %q", want)
}

// exitReport is what init wrote about the program's end.
func (tree *testTree) exitReport() []byte {
	fd, err := syscall.Open(filepath.Join(tree.dir, "exit"), syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	b := make([]byte, 1024)
	n, _ := syscall.Read(fd, b)
	return b[:max(n, 0)]
}

// check makes the program look at what it has set up.
func (c *conversation) check() {
	c.t.Helper()
	fmt.Fprintln(c.in, "check")
	c.expect("ok")
}

// TestBreadth wakes programs that each use some part of the kernel.
func TestBreadth(t *testing.T) {
	program := compileC(t, "breadth")
	for _, name := range []string{"timers", "pending", "handlers", "ignored trap", "blocked trap", "descriptors", "shared",
		"mappings", "growth", "calls", "forks", "threads", "sysv", "registrations", "once", "spent", "sealed", "lock future", "lock on fault", "places", "gone directory"} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := converse(t, program, name)
			c.loopbackUp()
			for range 3 {
				c.sleep(DumpOptions{Verify: true})
				c.wake()
				c.check()
			}
		})
	}
}

// TestRights compares all that /proc shows of processes with few rights.
func TestRights(t *testing.T) {
	c := converse(t, compileC(t, "breadth"), "rights")
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		before := c.snapshot()
		c.sleep(DumpOptions{Verify: true})
		c.wake()
		time.Sleep(20 * time.Millisecond)
		checkSame(t, before, c.snapshot())
		c.check()
	}
}

// errAsked is what a hook returns to stop a dump or restore.
var errAsked = errors.New("stopped by the test")

// TestAbortedDump checks that programs do not notice a dump that fails.
func TestAbortedDump(t *testing.T) {
	program := compileC(t, "breadth")
	for _, name := range []string{"timers", "pending", "handlers", "ignored trap", "blocked trap", "descriptors", "shared",
		"mappings", "growth", "calls", "forks", "threads", "sysv", "registrations", "once", "spent", "sealed", "lock future", "lock on fault", "places", "gone directory"} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := converse(t, program, name)
			c.loopbackUp()
			for range 3 {
				for _, step := range []string{"collect", "write", "commit"} {
					_, err := c.trySleep(DumpOptions{At: func(at string) error {
						if at == step {
							return errAsked
						}
						return nil
					}})
					if !errors.Is(err, errAsked) {
						t.Fatalf("dump: %v", err)
					}
				}
				c.check()
			}
		})
	}
}

// TestRefusals checks that what can not be saved is named and goes on.
func TestRefusals(t *testing.T) {
	program := compileC(t, "breadth")
	for _, test := range []struct{ name, reason string }{
		{"zombie", "is a zombie"},
		{"stopped", "is stopped by"},
		{"vforked", "waits for its vfork child"},
		{"uring", "io_uring"},
		{"userfault", "userfaultfd"},
		{"pidfd", "pidfd"},
		{"record lock", "record lock"},
		{"namespaced", "net namespace of its own"},
		{"destroyed", "marked to be destroyed"},
		{"own files", "descriptors or directories of its own"},
		{"strict", "strict seccomp mode"},
		{"sealed mapped", "F_SEAL_FUTURE_WRITE"},
		{"no gain", "PR_SET_MDWE"},
		{"dispatched", "PR_SET_SYSCALL_USER_DISPATCH"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			c := converse(t, program, test.name)
			before := c.snapshot()
			for range 2 {
				_, err := c.trySleep(DumpOptions{})
				var refusal *host.Refusal
				if !errors.As(err, &refusal) {
					t.Fatalf("dump: %v, want a refusal", err)
				}
				t.Log(refusal)
				if !slices.ContainsFunc(refusal.Reasons, func(r string) bool { return strings.Contains(r, test.reason) }) {
					t.Errorf("reasons are %q, want one with %q", refusal.Reasons, test.reason)
				}
				if _, err := ReadSpec(filepath.Join(c.dir, "checkpoint")); !errors.Is(err, host.ErrNotFound) {
					t.Errorf("a checkpoint is left: %v", err)
				}
			}
			checkSame(t, before, c.snapshot())
			c.check()
		})
	}
}
