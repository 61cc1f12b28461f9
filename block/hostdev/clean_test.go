package hostdev

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/loop"
	"torpor/kernel/mount"
)

// killed leaves the export of a server that was killed.
func killed(t *testing.T, dir string) *serving {
	t.Helper()
	s := serve(t, order{Path: newBackingFile(t), Spec: Spec{Name: "volume", MountDir: dir}}, nil)
	s.kill()
	return s
}

func TestClean(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir() + "/mount"
	s := killed(t, dir)
	if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("mount of a killed server: %v", err)
	}
	if err := Clean(dir); err != nil {
		t.Fatal(err)
	}
	wantGone(t, dir, s.device)
	if err := Clean(dir); err != nil {
		t.Errorf("second time: %v", err)
	}
}

func wantGone(t *testing.T, dir, device string) {
	t.Helper()
	d, err := loop.Parse(device)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := d.Info(); err == nil && strings.HasPrefix(info.BackingPath, dir) {
		t.Errorf("%s is still attached to %s", device, info.BackingPath)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mount directory is still there: %v", err)
	}
}

// TestCleanMounted: a file system on a dead export has to be unmounted first.
func TestCleanMounted(t *testing.T) {
	fs := fileSystems[0]
	fs.need(t)
	dir := t.TempDir() + "/mount"
	s := serve(t, order{Path: newBackingFile(t), Spec: Spec{Name: "volume", MountDir: dir}}, nil)
	fs.format(t, s.device)
	used := fs.mount(t, s.device)
	if err := Clean(dir); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "served by process") {
		t.Errorf("export that is served: %v", err)
	}
	s.kill()
	if err := Clean(dir); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), used) {
		t.Errorf("export with a file system: %v", err)
	}
	run(t, "umount", used)
	if err := Clean(dir); err != nil {
		t.Fatal(err)
	}
	wantGone(t, dir, s.device)
}

// TestCleanOthers leaves alone what is not ours.
func TestCleanOthers(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir()
	if err := Clean(dir + "/none"); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	if err := os.Mkdir(dir+"/tmpfs", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := mount.Tmpfs(dir+"/tmpfs", 1<<20, 0o700); err != nil {
		t.Fatal(err)
	}
	defer mount.Unmount(dir + "/tmpfs")
	if err := Clean(dir + "/tmpfs"); !errors.Is(err, host.ErrExists) {
		t.Errorf("tmpfs: got %v", err)
	}
	if err := Abort(dir + "/tmpfs"); !errors.Is(err, host.ErrExists) {
		t.Errorf("abort tmpfs: got %v", err)
	}

	// A loop device on a file that a mount covers later.
	hidden := dir + "/mount/hidden"
	if err := os.Mkdir(dir+"/mount", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hidden, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := loop.Attach(loop.Spec{BackingPath: hidden, BlockBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Detach(hidden, closeTime)
	s := killed(t, dir+"/mount")
	if err := Clean(dir + "/mount"); err != nil {
		t.Fatal(err)
	}
	if info, err := d.Info(); err != nil || info.BackingPath != hidden {
		t.Errorf("other's loop device: %+v, %v", info, err)
	}
	if _, err := os.Stat(hidden); err != nil {
		t.Error(err)
	}
	if e, _ := loop.Parse(s.device); e != d {
		if info, err := e.Info(); err == nil && strings.HasPrefix(info.BackingPath, dir) {
			t.Errorf("%s is still attached", s.device)
		}
	}
}

// TestAbort ends an export whose server does not answer.
func TestAbort(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir() + "/mount"
	e := attach(t, newDevice(t, 16<<20), Spec{MountDir: dir})
	_, file, err := e.Suspend()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f, p := open(t, e, os.O_RDWR), page(t)
	failed := make(chan error)
	go func() {
		_, err := f.ReadAt(p, 0)
		failed <- err
	}()
	if err := Clean(dir); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("suspended export: %v", err)
	}
	if err := Abort(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v", err)
	}
	f.Close()
	file.Close()
	if err := Clean(dir); err != nil {
		t.Fatal(err)
	}
	wantGone(t, dir, e.Path())
}

// TestAbortServed: a server notices, and can clean up itself.
func TestAbortServed(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir() + "/mount"
	e := attach(t, newDevice(t, 16<<20), Spec{MountDir: dir})
	if err := Abort(dir); err != nil {
		t.Fatal(err)
	}
	<-e.Done()
	if _, _, err := e.Suspend(); !errors.Is(err, errDead) {
		t.Errorf("suspend: %v", err)
	}
	if err := e.Detach(); err != nil {
		t.Error(err)
	}
	wantGone(t, dir, e.Path())
}
