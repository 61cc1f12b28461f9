package backing_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/block"
	"torpor/block/backing"
	"torpor/internal/kerneltest"
)

func TestCreateFile(t *testing.T) {
	dir := t.TempDir()
	sparse, full := filepath.Join(dir, "sparse"), filepath.Join(dir, "full")
	if err := errors.Join(backing.CreateFile(sparse, 1<<20, false), backing.CreateFile(full, 1<<20, true)); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]block.Kind{sparse: block.Hole, full: block.Zero} {
		d, err := backing.OpenFile(path, backing.Options{})
		if err != nil {
			t.Fatal(err)
		}
		all := block.Range{LenBytes: 1 << 20}
		want := []block.Extent{{Range: all, Kind: kind}}
		if got, err := d.Status(all); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v, %v", path, got, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := backing.CreateFile(full, 1, false); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("create what is there: %v", err)
	}
	if info, err := os.Stat(full); err != nil || info.Size() != 1<<20 {
		t.Errorf("what was there: %v, %v", info, err)
	}
	if err := backing.CreateFile(filepath.Join(dir, "negative"), -1, false); err == nil {
		t.Error("made a file of -1 bytes")
	}
	if _, err := os.Stat(filepath.Join(dir, "negative")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left half a file: %v", err)
	}
}

// TestFileIsLocked opens a file twice to write, and to read beside.
func TestFileIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := backing.CreateFile(path, 1<<20, false); err != nil {
		t.Fatal(err)
	}
	first, err := backing.OpenFile(path, backing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backing.OpenFile(path, backing.Options{}); !errors.Is(err, syscall.EWOULDBLOCK) || !strings.Contains(err.Error(), "this process") {
		t.Errorf("opened twice to write: %v", err)
	}
	reader, err := backing.OpenFile(path, backing.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(reader.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := backing.OpenFile(path, backing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestBlockDeviceIsExclusive opens a loop device twice to write.
func TestBlockDeviceIsExclusive(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("losetup"), kerneltest.File("/dev/loop-control"))
	path := loopDevice(t, filepath.Join(t.TempDir(), "disk"))
	first, err := backing.OpenFile(path, backing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := backing.OpenFile(path, backing.Options{}); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("opened twice to write: %v", err)
	}
	if err := first.Zero(block.Range{LenBytes: 1 << 20}, block.FastOnly); err != nil && !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("zero fast: %v", err)
	}
}

// smallFileSystem mounts a file system in memory of so many bytes.
func smallFileSystem(t *testing.T, options string) string {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFileWithoutSpace writes a sparse file on a full file system. Flushes go on.
func TestFileWithoutSpace(t *testing.T) {
	dir := smallFileSystem(t, "size=1m")
	path := filepath.Join(dir, "disk")
	if err := backing.CreateFile(path, 4<<20, true); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("preallocate: %v", err)
	}
	if err := backing.CreateFile(path, 4<<20, false); err != nil {
		t.Fatal(err)
	}
	d, err := backing.OpenFile(path, backing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []block.Flags{0, block.FUA} {
		if err := d.WriteAt(make([]byte, 2<<20), 0, flags); !errors.Is(err, block.ErrNoSpace) || block.Errno(err) != syscall.ENOSPC {
			t.Errorf("write: %v", err)
		}
	}
	if err := errors.Join(d.Discard(block.Range{LenBytes: 4 << 20}, 0), d.WriteAt(make([]byte, 512<<10), 0, block.FUA), d.Flush(), d.Close()); err != nil {
		t.Errorf("after space was given back: %v", err)
	}
}

// lossy mounts a file system on a disk that has no space for what is written
// back to it after damage: writes succeed, and are lost. Cure gives it space.
func lossy(t *testing.T) (dir string, damage, cure func()) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("losetup"), kerneltest.Program("mkfs.ext4"), kerneltest.File("/dev/loop-control"))
	below := smallFileSystem(t, "size=6m")
	filler := filepath.Join(below, "filler")
	path := loopDevice(t, filepath.Join(below, "disk"))
	dir = t.TempDir()
	// In blocks that are pages of the file below: of a write that finds space for
	// its beginning the loop device says that it was done.
	run(t, "mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal", "-E", "nodiscard", path)
	run(t, "mount", "-o", "errors=continue", path, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	damage = func() {
		run(t, "sync", "-f", dir)
		b := make([]byte, 64<<10)
		f, err := os.Create(filler)
		for err == nil {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		f.Close()
	}
	return dir, damage, func() { os.Remove(filler) }
}

// TestStartedWriteIsLost writes durably to a disk that has no space for it any more:
// that fails, and flushes remember it.
func TestStartedWriteIsLost(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("losetup"), kerneltest.File("/dev/loop-control"))
	below := smallFileSystem(t, "size=6m")
	path := loopDevice(t, filepath.Join(below, "disk"))
	if err := os.WriteFile(filepath.Join(below, "filler"), make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	d, err := backing.OpenFile(path, withQueue(t))
	if err != nil {
		t.Fatal(err)
	}
	write := func() error {
		return block.Wait(func(done func(error)) {
			block.StartWrite(d, [][]byte{block.AlignedBuffer(1 << 20)}, 0, block.FUA, done)
		})
	}
	if err := write(); err == nil {
		t.Fatal("written durably to a disk without space")
	}
	first := d.Flush()
	t.Logf("flush: %v", first)
	if err := os.Remove(filepath.Join(below, "filler")); err != nil {
		t.Fatal(err)
	}
	if second := d.Flush(); (first == nil) != (second == nil) {
		t.Errorf("flush again: %v", second)
	}
	if err := write(); (err == nil) != (first == nil) {
		t.Errorf("write again: %v; flush was %v", err, first)
	}
	if err := d.Close(); (err == nil) != (first == nil) {
		t.Errorf("close: %v", err)
	}
}

// TestLossIsRemembered loses written blocks: flush says so, and again although
// the kernel would not.
func TestLossIsRemembered(t *testing.T) {
	content := bytes.Repeat([]byte{7}, 1<<20)
	devices := map[string]func(t *testing.T, dir string) block.Device{
		"file": func(t *testing.T, dir string) block.Device {
			path := filepath.Join(dir, "disk")
			if err := backing.CreateFile(path, 2<<20, false); err != nil {
				t.Fatal(err)
			}
			d, err := backing.OpenFile(path, backing.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		"directory": func(t *testing.T, dir string) block.Device {
			path := filepath.Join(dir, "disk")
			if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 2 << 20, ChunkBytes: 256 << 10}); err != nil {
				t.Fatal(err)
			}
			d, err := backing.OpenDirectory(path, backing.Options{})
			if err != nil {
				t.Fatal(err)
			}
			d.LimitOpen(2) // so that some are lost when they are evicted
			return d
		},
	}
	for name, open := range devices {
		for _, fua := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir, damage, cure := lossy(t)
				d := open(t, dir)
				t.Cleanup(func() { d.Close() }) // before the file system goes
				damage()
				if err := d.WriteAt(content, 0, 0); err != nil {
					t.Fatal(err)
				}
				var err error
				if fua { // is the one who is told
					err = d.WriteAt(content[:4096], 0, block.FUA)
				} else {
					err = d.Flush()
				}
				if err == nil {
					t.Fatal("nothing was lost")
				}
				cure()
				if err := d.Flush(); err == nil {
					t.Error("the loss was forgotten")
				}
				if err := d.WriteAt(content[:4096], 0, block.FUA); err == nil {
					t.Error("durable after a loss")
				}
				if err := d.Close(); err == nil {
					t.Error("closed without mentioning the loss")
				}
			})
		}
	}
}

// TestLossByEviction loses the blocks of a chunk whose file is closed before a
// flush, to make room for others.
func TestLossByEviction(t *testing.T) {
	const chunk = 256 << 10
	dir, damage, cure := lossy(t)
	path := filepath.Join(dir, "disk")
	if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 4 * chunk, ChunkBytes: chunk}); err != nil {
		t.Fatal(err)
	}
	d := openDirectory(t, path)
	t.Cleanup(func() { d.Close() }) // before the file system goes
	d.LimitOpen(1)
	if err := errors.Join(d.WriteAt(make([]byte, 4096), 0, 0), d.Flush()); err != nil {
		t.Fatal(err)
	}
	damage()
	if err := d.WriteAt(bytes.Repeat([]byte{7}, chunk), chunk, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if n := d.Opened(); n != 1 {
		t.Fatalf("%d files are open", n)
	}
	cure()
	if err := d.Flush(); err == nil {
		t.Error("the loss was not noticed")
	}
	if err := d.Close(); err == nil {
		t.Error("closed without mentioning the loss")
	}
}
