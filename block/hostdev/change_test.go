package hostdev

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"torpor/block"
	"torpor/internal/kerneltest"
)

// open opens an export's device, past the page cache.
func open(t *testing.T, e *Export, mode int) *os.File {
	t.Helper()
	f, err := os.OpenFile(e.Path(), mode|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// page is memory that direct I/O accepts.
func page(t *testing.T) []byte {
	t.Helper()
	p, err := syscall.Mmap(-1, 0, block.BlockBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(p) })
	return p
}

func TestErrorsReachTheUser(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dev := newDevice(t, 16<<20)
	e := attach(t, dev, Spec{})
	f, p := open(t, e, os.O_RDWR), page(t)
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		dev.fail(errno)
		if _, err := f.WriteAt(p, 0); !errors.Is(err, errno) {
			t.Errorf("write: got %v, want %v", err, errno)
		}
	}
	dev.fail(syscall.ENOSYS) // which would stop the kernel from flushing at all
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: got %v, want EIO", err)
	}
	dev.fail(0)
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	dev.failReads(syscall.EIO)
	if _, err := f.ReadAt(p, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: got %v, want EIO", err)
	}
	dev.failReads(0)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Error(err)
	}
}

// TestNoSpaceReachesFileSystems: who waits for a file to be durable is told
// why it is not.
func TestNoSpaceReachesFileSystems(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			fs.need(t)
			dev := newDevice(t, fs.sizeBytes)
			e := attach(t, dev, Spec{})
			fs.format(t, e.Path())
			dir := fs.mount(t, e.Path())
			f, err := os.Create(dir + "/file")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			run(t, "sync", "-f", dir) // so that data is all that is left to write
			if _, err := f.WriteAt(make([]byte, 1<<20), 0); err != nil {
				t.Fatal(err)
			}
			dev.fail(syscall.ENOSPC)
			err = f.Sync()
			dev.fail(0)
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("fsync: got %v, want ENOSPC", err)
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dev := newDevice(t, 16<<20)
	if err := dev.WriteAt(append([]byte("content"), make([]byte, block.BlockBytes-7)...), 0, 0); err != nil {
		t.Fatal(err)
	}
	e := attach(t, dev, Spec{ReadOnly: true})
	f, p := open(t, e, os.O_RDONLY), page(t)
	if _, err := f.ReadAt(p, 0); err != nil || string(p[:7]) != "content" {
		t.Errorf("got %q, %v", p[:7], err)
	}
	if f, err := os.OpenFile(e.Path(), os.O_WRONLY, 0); err == nil {
		if _, err := f.WriteAt(p, 0); !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EROFS) {
			t.Errorf("write: %v", err)
		}
		f.Close()
	}
	if dev.writes.Load() != 1 {
		t.Error("a write reached the device")
	}
}

// TestZeros writes zeros to a device that discards, and to one that does not.
func TestZeros(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("blkdiscard"))
	for name, discardless := range map[string]bool{"discards": false, "discardless": true} {
		t.Run(name, func(t *testing.T) {
			dev := newDevice(t, 16<<20)
			dev.discardless = discardless
			if err := dev.WriteAt(bytes.Repeat([]byte{1}, 16384), 0, 0); err != nil {
				t.Fatal(err)
			}
			e := attach(t, dev, Spec{})
			run(t, "blkdiscard", "-z", "-o", "4096", "-l", "8192", e.Path())
			want := bytes.Repeat([]byte{1}, 16384)
			clear(want[4096:12288])
			if got := dev.content(t, 0, 16384); !bytes.Equal(got, want) {
				t.Errorf("after zeros: blocks begin with %d %d %d %d", got[0], got[4096], got[8192], got[12288])
			}
			f, err := os.OpenFile(e.Path(), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			discards := dev.discards.Load()
			if err := discardAll(f, 16<<20); err != nil {
				t.Error(err)
			}
			if got := dev.discards.Load() > discards; got == discardless {
				t.Errorf("device was asked to discard: %v", got)
			}
			if got := dev.content(t, 0, 4096)[0] == 1; got != discardless {
				t.Errorf("content is still there after a discard: %v", got)
			}
		})
	}
}

// TestResize grows a device and a mounted file system with it, and shrinks it.
func TestResize(t *testing.T) {
	btrfs := fileSystems[2]
	btrfs.need(t)
	const small, large = 128 << 20, 256 << 20
	dev := newDevice(t, small)
	e := attach(t, dev, Spec{})
	btrfs.format(t, e.Path())
	dir := btrfs.mount(t, e.Path())
	dev.sizeBytes.Store(large + 512) // rounded down
	wantSize(t, e, small)
	if err := e.Resize(); err != nil {
		t.Fatal(err)
	}
	wantSize(t, e, large)
	run(t, "btrfs", "filesystem", "resize", "max", dir)
	if err := os.WriteFile(dir+"/file", make([]byte, small), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "umount", dir)
	btrfs.verify(t, e.Path())
	dev.sizeBytes.Store(small)
	if err := e.Resize(); err != nil {
		t.Fatal(err)
	}
	wantSize(t, e, small)
}

func wantSize(t *testing.T, e *Export, sizeBytes int64) {
	t.Helper()
	d, err := e.state.loop()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := d.Info(); err != nil || info.SizeBytes != sizeBytes {
		t.Fatalf("got %+v, %v, want %d bytes", info, err, sizeBytes)
	}
}

func TestDetachMounted(t *testing.T) {
	fs := fileSystems[0]
	fs.need(t)
	e := attach(t, newDevice(t, 32<<20), Spec{})
	fs.format(t, e.Path())
	dir := fs.mount(t, e.Path())
	err := e.Detach()
	if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "mount "+dir) {
		t.Errorf("got %v, want EBUSY and the mount", err)
	}
	if err := os.WriteFile(dir+"/file", []byte("content"), 0o600); err != nil {
		t.Errorf("not usable after a refusal: %v", err)
	}
}

func TestAttachRefuses(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dev := newDevice(t, 1<<20)
	dir := t.TempDir()
	for _, spec := range []Spec{
		{Name: "", MountDir: dir}, {Name: "a/b", MountDir: dir}, {Name: "..", MountDir: dir}, {Name: "a\n", MountDir: dir},
		{Name: "a", MountDir: "mount"}, {Name: "a", MountDir: dir + "/"},
	} {
		if e, err := Attach(dev, spec); err == nil {
			t.Errorf("attached %+v", spec)
			e.Detach()
		}
	}
	e := attach(t, dev, Spec{MountDir: dir + "/mount"})
	if _, err := Attach(dev, Spec{Name: "other", MountDir: dir + "/mount"}); err == nil {
		t.Error("attached where an export is")
	}
	if _, err := os.Stat(e.Path()); err != nil {
		t.Error(err)
	}
}
