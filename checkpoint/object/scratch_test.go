package object

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/openfile"
	"torpor/kernel/visit"
)

// initArg makes the test binary the init of a scratch container.
const initArg = "object-init"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == initArg {
		if err := scratchInit(os.Args[2]); !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, "scratch container:", err)
		}
		os.Exit(1)
	}
	kerneltest.Main(m)
}

// scratch is a container with a directory as its root file system.
type scratch struct {
	Container
	t    testing.TB
	root string   // on the host; without its mounts
	out  *os.File // what its standard output leads to
}

// newScratch starts a container that ends with the test.
func newScratch(t testing.TB) *scratch {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.MntNS, kerneltest.PIDNS)
	c := &scratch{t: t, root: t.TempDir()}
	ready, readyEnd, err := os.Pipe()
	check(t, err)
	defer ready.Close()
	leash, leashEnd, err := os.Pipe()
	check(t, err)
	defer leash.Close()
	out, outEnd, err := os.Pipe()
	check(t, err)
	c.out = out
	cmd := exec.Command("/proc/self/exe", initArg, c.root)
	cmd.Stdout, cmd.ExtraFiles = outEnd, []*os.File{readyEnd, leash}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID}
	check(t, cmd.Start())
	readyEnd.Close()
	outEnd.Close()
	t.Cleanup(func() {
		leashEnd.Close()
		cmd.Wait() // its status says nothing
		out.Close()
	})
	if b, err := io.ReadAll(ready); err != nil || string(b) != "ready" {
		t.Fatalf("start scratch container: %q, %v", b, err)
	}
	c.PID = cmd.Process.Pid
	return c
}

// scratchInit runs in the new namespaces and stays.
func scratchInit(root string) error {
	steps := []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "") },
		func() error { return unix.Mount(root, root, "", unix.MS_BIND, "") },
		func() error {
			return makeDirs(root, "proc", "tmp", "dev", "dev/shm", "data", "old", "lower", "upper", "work", "over")
		},
		func() error { return unix.Mount("proc", root+"/proc", "proc", 0, "") },
		func() error { return unix.Mount("shm", root+"/dev/shm", "tmpfs", 0, "") },
		func() error { return makeDevices(root + "/dev") },
		func() error { return os.WriteFile(root+"/lower/program", []byte("program"), 0o755) },
		func() error {
			return unix.Mount("over", root+"/over", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", root))
		},
		func() error { return unix.PivotRoot(root, root+"/old") },
		func() error { return unix.Chdir("/") },
		func() error { return unix.Unmount("/old", unix.MNT_DETACH) },
		loopbackUp,
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	ready := os.NewFile(3, "ready")
	if _, err := ready.WriteString("ready"); err != nil {
		return err
	}
	ready.Close()
	_, err := os.NewFile(4, "leash").Read(make([]byte, 1)) // until the test ends
	return err
}

func makeDirs(root string, names ...string) error {
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func makeDevices(dir string) error {
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return err
		}
	}
	return unix.Mknod(filepath.Join(dir, "tun"), unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200)))
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// do runs f in the container's network and root directory.
func (c *scratch) do(f func() error) {
	c.t.Helper()
	check(c.t, visit.Do(c.PID, visit.Network|visit.Root, f))
}

// openPath opens a file in the container.
func (c *scratch) openPath(path string, flags int) (fd int) {
	c.t.Helper()
	c.do(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		return err
	})
	return fd
}

// socket makes a socket in the container.
func (c *scratch) socket(domain, kind, protocol int) (fd int) {
	c.t.Helper()
	c.do(func() (err error) {
		fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	return fd
}

// transfer takes open files from one container to another.
type transfer struct {
	t        testing.TB
	from, to *scratch
	open     []Open
	specs    []Spec
	dir      string
	options  MakeOptions
	fds      []int
}

func newTransfer(t testing.TB) *transfer {
	t.Helper()
	tr := &transfer{t: t, from: newScratch(t), dir: t.TempDir()}
	t.Cleanup(tr.close)
	return tr
}

func (tr *transfer) close() {
	for _, fd := range tr.fds {
		unix.Close(fd)
	}
	for _, o := range tr.open {
		unix.Close(o.FD)
	}
	tr.fds, tr.open = nil, nil
}

// add adds an open file, which the transfer owns, and returns its index.
func (tr *transfer) add(fd int) int { return tr.addUse(fd, UseDescriptor) }

func (tr *transfer) addUse(fd int, use Use) int {
	tr.t.Helper()
	target, err := openfile.PathOf(fd)
	check(tr.t, err)
	tr.open = append(tr.open, Open{FD: fd, PID: os.Getpid(), Number: fd, Use: use, Target: target})
	return len(tr.open) - 1
}

// describe describes all, closes them, and passes the Specs through JSON.
func (tr *transfer) describe() {
	tr.t.Helper()
	specs, err := Describe(tr.from.Container, tr.dir, tr.open)
	check(tr.t, err)
	b, err := json.Marshal(specs)
	check(tr.t, err)
	check(tr.t, json.Unmarshal(b, &tr.specs))
	tr.close()
}

// move describes all and makes them in a second container.
func (tr *transfer) move() {
	tr.t.Helper()
	tr.describe()
	tr.to = newScratch(tr.t)
	tr.make()
}

func (tr *transfer) make() {
	tr.t.Helper()
	var err error
	tr.fds, err = Make(tr.to.Container, tr.dir, tr.specs, tr.options)
	check(tr.t, err)
}

// refused asserts that Describe refuses with these words.
func (tr *transfer) refused(words ...string) {
	tr.t.Helper()
	_, err := Describe(tr.from.Container, tr.dir, tr.open)
	wantRefusal(tr.t, err, words...)
}

func wantRefusal(t testing.TB, err error, words ...string) {
	t.Helper()
	var refusal *host.Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("describe: %v, want a refusal of %q", err, words)
	}
	for _, w := range words {
		if !strings.Contains(refusal.Error(), w) {
			t.Errorf("refusal %q does not say %q", refusal, w)
		}
	}
}

func wantFlags(t testing.TB, fd, want int) {
	t.Helper()
	if got, err := openfile.Flags(fd); err != nil || got&keptFlags != want {
		t.Errorf("flags %#o (%v), want %#o", got&keptFlags, err, want)
	}
}

func wantRead(t testing.TB, fd int, want string) {
	t.Helper()
	b := make([]byte, len(want)+100)
	n, err := unix.Read(fd, b)
	if err != nil || string(b[:n]) != want {
		t.Errorf("read %q (%v), want %q", b[:max(n, 0)], err, want)
	}
}

func wantErrno(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func write(t testing.TB, fd int, text string) {
	t.Helper()
	if n, err := unix.Write(fd, []byte(text)); err != nil || n != len(text) {
		t.Fatalf("write: %d, %v", n, err)
	}
}
