package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"torpor/checkpoint/blob"
	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/cgroup"
	"torpor/kernel/proc"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// box is a container that a test makes: its root file system has the host's
// /usr, read-only, and users of its own.
type box struct {
	t       *testing.T
	dir     string
	runtime *Runtime
	bundle  Bundle
	stdio   StdioSpec
	console *os.File
	pid     int
}

// boxUsers are the users in a box; app is also in games by name.
const (
	boxPasswd = "root:x:0:0::/root:/bin/sh\napp:x:1234:2345::/home/app:/bin/sh\n"
	boxGroup  = "root:x:0:\nappgroup:x:2345:\ngames:x:60:app\nextra:x:77:\n"
)

// boxes tells those of one run apart.
var boxes atomic.Int32

func newBox(t *testing.T, args ...string) *box {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Runc)
	dir := t.TempDir()
	b := &box{t: t, dir: dir, stdio: StdioSpec{Dir: filepath.Join(dir, "run")}}
	rootfs := filepath.Join(dir, "bundle", "rootfs")
	for _, name := range []string{"etc", "usr", "home/app", "tmp", "root", "proc", "sys", "dev"} {
		b.must(os.MkdirAll(filepath.Join(rootfs, name), 0o755))
	}
	b.must(os.Chmod(filepath.Join(rootfs, "tmp"), 0o1777))
	b.must(os.Chown(filepath.Join(rootfs, "home/app"), 1234, 2345))
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		b.must(os.Symlink("usr/"+name, filepath.Join(rootfs, name)))
	}
	b.must(os.WriteFile(filepath.Join(rootfs, "etc/passwd"), []byte(boxPasswd), 0o644))
	b.must(os.WriteFile(filepath.Join(rootfs, "etc/group"), []byte(boxGroup), 0o644))
	initHost := filepath.Join(dir, "init")
	b.must(os.WriteFile(initHost, blob.InitELF(), 0o755))
	runtime, err := OpenRuntime("", filepath.Join(dir, "runtime"))
	b.must(err)
	b.runtime = runtime
	id := host.ContainerID(fmt.Sprintf("tt%d-%d-1", os.Getpid(), boxes.Add(1)))
	b.bundle = Bundle{ID: id, RootFS: rootfs, InitHost: initHost, Args: args, WorkingDir: "/", Hostname: "boxed",
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, CgroupPath: "/torpor-test/" + string(id),
		Mounts: []BindMount{{Source: "/usr", Target: "/usr", ReadOnly: true}}}
	return b
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// start makes the container and starts its application.
func (b *box) start() {
	b.t.Helper()
	ctx := context.Background()
	bundleDir := filepath.Join(b.dir, "bundle")
	b.must(b.bundle.Write(bundleDir))
	user, err := ResolveUser(b.bundle.RootFS, b.bundle.User, nil)
	b.must(err)
	b.stdio.UID, b.stdio.GID, b.stdio.TTY = int(user.UID), int(user.GID), b.bundle.Service.TTY
	stdio, err := NewStdio(b.stdio)
	b.must(err)
	defer stdio.Close()
	b.t.Cleanup(b.remove)
	b.pid, err = b.runtime.Create(ctx, b.bundle.ID, bundleDir, stdio)
	b.must(err)
	b.console, err = stdio.Console()
	b.must(err)
	b.must(b.runtime.Start(ctx, b.bundle.ID))
}

// remove deletes the container and looks for what it left.
func (b *box) remove() {
	if b.console != nil {
		b.console.Close()
	}
	if err := b.runtime.Delete(context.Background(), b.bundle.ID); err != nil {
		b.t.Error(err)
	}
	if _, err := b.runtime.State(context.Background(), b.bundle.ID); !errors.Is(err, host.ErrNotFound) {
		b.t.Errorf("state after removal: %v", err)
	}
	if g, err := cgroup.Open(b.bundle.CgroupPath); !errors.Is(err, host.ErrNotFound) {
		b.t.Errorf("cgroups after removal: %v, %v", g, err)
	}
	if parent, err := cgroup.Open("/torpor-test"); err == nil {
		_ = parent.Remove() // unless another test's container is in it
	}
	if status, err := proc.ReadStatus(b.pid, b.pid); b.pid != 0 && err == nil && status.State != 'Z' { // it is not ours to reap
		b.t.Errorf("init %d still lives: %+v", b.pid, status)
	}
}

// wait returns the exit status that the init reports, and what the application
// has written.
func (b *box) wait() (status syscall.WaitStatus, stdout, stderr string) {
	b.t.Helper()
	exit, err := os.OpenFile(filepath.Join(b.stdio.Dir, "exit"), os.O_RDWR|syscall.O_NONBLOCK, 0)
	b.must(err)
	defer exit.Close()
	b.must(exit.SetReadDeadline(time.Now().Add(30 * time.Second)))
	var record [8]byte
	if _, err := exit.Read(record[:]); err != nil {
		b.t.Fatalf("wait for exit: %v; so far %q, %q", err, b.written("stdout"), b.written("stderr"))
	}
	return syscall.WaitStatus(binary.LittleEndian.Uint32(record[4:])), b.written("stdout"), b.written("stderr")
}

// written drains a FIFO.
func (b *box) written(name string) string {
	b.t.Helper()
	fd, err := syscall.Open(filepath.Join(b.stdio.Dir, name), syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ENOENT) {
		return ""
	}
	b.must(err)
	defer syscall.Close(fd)
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := syscall.Read(fd, buf)
		if n <= 0 || err != nil {
			return string(all)
		}
		all = append(all, buf[:n]...)
	}
}

// output runs the application to its end, which must be good, and returns its
// output without trailing space.
func (b *box) output() string {
	b.t.Helper()
	b.start()
	status, stdout, stderr := b.wait()
	if status.ExitStatus() != 0 {
		b.t.Fatalf("application ended with %v; stdout %q, stderr %q", status, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}
