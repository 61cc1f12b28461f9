package hostdev

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"torpor/internal/kerneltest"
	"torpor/kernel/loop"
)

// run runs a program and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestAttach(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dev := newDevice(t, 64<<20)
	dir := t.TempDir() + "/mount"
	e := attach(t, dev, Spec{MountDir: dir})
	d, err := loop.Parse(e.Path())
	if err != nil {
		t.Fatal(err)
	}
	info, err := d.Info()
	want := loop.Info{BackingPath: dir + "/volume", DirectIO: true, BlockBytes: 4096, SizeBytes: 64 << 20}
	if err != nil || info != want {
		t.Fatalf("got %+v, %v, want %+v", info, err, want)
	}
	content := make([]byte, 3<<20)
	rand.Read(content)
	f, err := os.OpenFile(e.Path(), os.O_RDWR|syscall.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(content, 8<<20); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dev.content(t, 8<<20, 3<<20), content) {
		t.Error("what was written is not on the device")
	}
	if dev.flushes.Load() == 0 {
		t.Error("a synchronous write did not flush")
	}
	f.Close()
	run(t, "dd", "if="+e.Path(), "of=/dev/null", "bs=1M", "iflag=direct")
	if n := dev.misaligned.Load(); n != 0 {
		t.Errorf("%d buffers were not aligned", n)
	}
	if err := e.Detach(); err != nil {
		t.Fatal(err)
	}
	if again, err := d.Info(); err == nil && again == info {
		t.Error("still attached")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mount directory is still there: %v", err)
	}
	if err := e.Detach(); err == nil {
		t.Error("detached twice")
	}
}

// TestDetachWithCopies: a mount namespace that was made meanwhile has a copy of
// the mount, which does not keep anything alive.
func TestDetachWithCopies(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.MntNS)
	e := attach(t, newDevice(t, 1<<20), Spec{})
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // private
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := e.Detach(); err != nil {
		t.Error(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestManyAtOnce: exports come and go at the same time, for free loop devices
// are found by trying.
func TestManyAtOnce(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	const exports, rounds = 8, 4
	dir := t.TempDir()
	var group errgroup.Group
	for i := range exports {
		dev := newDevice(t, 1<<20)
		group.Go(func() error {
			for range rounds {
				if err := comeAndGo(dev, Spec{Name: "volume (deleted)", MountDir: fmt.Sprint(dir, "/", i)}, byte(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// comeAndGo writes a byte everywhere in a new export and looks for it on the
// device.
func comeAndGo(dev *device, spec Spec, content byte) error {
	e, err := Attach(dev, spec)
	if err != nil {
		return err
	}
	p := bytes.Repeat([]byte{content}, int(dev.sizeBytes.Load()))
	err = os.WriteFile(e.Path(), p, 0)
	if err := errors.Join(err, e.Detach()); err != nil {
		return err
	}
	got := make([]byte, len(p))
	if err := dev.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, p) {
		return fmt.Errorf("content of %d is not what was written", content)
	}
	return nil
}
