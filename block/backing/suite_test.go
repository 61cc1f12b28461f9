package backing_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/backing"
	"torpor/block/devicetest"
	"torpor/internal/kerneltest"
	"torpor/kernel/aio"
)

var options = []backing.Options{{}, {Direct: true}}

// withQueue is opening with a small queue.
func withQueue(t *testing.T) backing.Options {
	q, err := aio.NewQueue(16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return backing.Options{Direct: true, Queue: q}
}

func TestFile(t *testing.T) {
	for _, o := range options {
		t.Run(fmt.Sprintf("direct %v", o.Direct), func(t *testing.T) { testFile(t, t.TempDir(), o) })
	}
	t.Run("queue", func(t *testing.T) { testFile(t, t.TempDir(), withQueue(t)) })
	t.Run("tmpfs", func(t *testing.T) {
		kerneltest.Require(t, kerneltest.File("/dev/shm"))
		testFile(t, inMemory(t), backing.Options{Direct: true})
	})
}

func testFile(t *testing.T, dir string, o backing.Options) {
	paths := map[block.Device]string{}
	open := func(t testing.TB, path string) block.Device {
		d, err := backing.OpenFile(path, o)
		if err != nil {
			t.Fatal(err)
		}
		paths[d] = path
		return d
	}
	made := 0
	fresh := func(t testing.TB) block.Device {
		made++
		path := filepath.Join(dir, fmt.Sprint("disk", made))
		if err := backing.CreateFile(path, 5<<20+1000, made%2 == 0); err != nil {
			t.Fatal(err)
		}
		return open(t, path)
	}
	reopen := func(t testing.TB, d block.Device) block.Device {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t, paths[d])
	}
	devicetest.Run(t, fresh, devicetest.Options{Reopen: reopen, Steps: 120})

	d := fresh(t)
	if err := d.WriteAt(make([]byte, 4096), 4096, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	readOnly, err := backing.OpenFile(paths[d], backing.Options{ReadOnly: true, Direct: o.Direct})
	if err != nil {
		t.Fatal(err)
	}
	devicetest.RunReadOnly(t, readOnly)
}

// TestPoorFileSystem runs the suite where there are no holes, no reserved space
// and no direct I/O.
func TestPoorFileSystem(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	made := 0
	file := func(t testing.TB) block.Device {
		made++
		path := filepath.Join(dir, fmt.Sprint("file", made))
		if err := backing.CreateFile(path, 2<<20, false); err != nil {
			t.Fatal(err)
		}
		d, err := backing.OpenFile(path, backing.Options{Direct: true})
		if err != nil {
			t.Fatal(err)
		}
		if d.Direct() {
			t.Error("says that it is direct")
		}
		if err := d.Zero(block.Range{LenBytes: 4096}, block.FastOnly); !errors.Is(err, block.ErrUnsupported) {
			t.Errorf("zero fast: %v", err)
		}
		return d
	}
	directory := func(t testing.TB) block.Device {
		made++
		path := filepath.Join(dir, fmt.Sprint("directory", made))
		if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 2 << 20, ChunkBytes: 64 << 10}); err != nil {
			t.Fatal(err)
		}
		return openDirectory(t, path)
	}
	t.Run("file", func(t *testing.T) { devicetest.Run(t, file, devicetest.Options{Steps: 100}) })
	t.Run("directory", func(t *testing.T) { devicetest.Run(t, directory, devicetest.Options{Steps: 100}) })
}

// inMemory makes a directory in memory, removed after the test.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "torpor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestBlockDevice runs the suite on a loop device.
func TestBlockDevice(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("losetup"), kerneltest.File("/dev/loop-control"))
	for _, o := range append(options, withQueue(t)) {
		t.Run(fmt.Sprintf("direct %v, queue %v", o.Direct, o.Queue != nil), func(t *testing.T) {
			path := loopDevice(t, filepath.Join(t.TempDir(), "disk"))
			open := func(t testing.TB) block.Device {
				d, err := backing.OpenFile(path, o)
				if err != nil {
					t.Fatal(err)
				}
				if d.Info().Discards {
					t.Error("says that discarded blocks read as zeros")
				}
				return d
			}
			reopen := func(t testing.TB, d block.Device) block.Device {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t)
			}
			devicetest.Run(t, open, devicetest.Options{Reopen: reopen, Steps: 120})
			readOnly, err := backing.OpenFile(path, backing.Options{ReadOnly: true, Direct: o.Direct})
			if err != nil {
				t.Fatal(err)
			}
			devicetest.RunReadOnly(t, readOnly)
		})
	}
}

// loopDevice attaches a loop device to a new file; it is gone after the test.
func loopDevice(t *testing.T, file string) string {
	if err := backing.CreateFile(file, 8<<20, false); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("attach loop device: %v: %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", path).CombinedOutput(); err != nil {
			t.Errorf("detach loop device: %v: %s", err, out)
		}
		attached := filepath.Join("/sys/block", filepath.Base(path), "loop", "backing_file")
		for range 500 { // detaching is finished later by whoever has it open
			if now, err := os.ReadFile(attached); err != nil || strings.TrimSpace(string(now)) != file {
				return // or it is another's already
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s stays attached", path)
	})
	return path
}

func TestDirectory(t *testing.T) {
	for chunkBytes, o := range map[int64]backing.Options{64 << 10: {}, 1<<20 + 4096: {Direct: true}, 64 << 20: {}} {
		t.Run(fmt.Sprintf("direct %v, chunks of %d", o.Direct, chunkBytes), func(t *testing.T) {
			testDirectory(t, t.TempDir(), o, chunkBytes)
		})
	}
	t.Run("tmpfs", func(t *testing.T) {
		kerneltest.Require(t, kerneltest.File("/dev/shm"))
		testDirectory(t, inMemory(t), backing.Options{}, 256<<10)
	})
}

func testDirectory(t *testing.T, dir string, o backing.Options, chunkBytes int64) {
	paths := map[block.Device]string{}
	open := func(t testing.TB, path string) block.Device {
		d, err := backing.OpenDirectory(path, o)
		if err != nil {
			t.Fatal(err)
		}
		d.LimitOpen(10)
		paths[d] = path
		return d
	}
	made := 0
	fresh := func(t testing.TB) block.Device {
		made++
		path := filepath.Join(dir, fmt.Sprint("disk", made))
		if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 5<<20 + 12288, ChunkBytes: chunkBytes}); err != nil {
			t.Fatal(err)
		}
		return open(t, path)
	}
	reopen := func(t testing.TB, d block.Device) block.Device {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t, paths[d])
	}
	// A process that dies loses nothing: what it wrote is the kernel's. Files cut
	// off as by a crash of the machine are tried by TestShortChunk.
	crash := func(t testing.TB, d block.Device, _ *rand.Rand) block.Device {
		d.(*backing.Directory).Abandon()
		return open(t, paths[d])
	}
	devicetest.Run(t, fresh, devicetest.Options{Reopen: reopen, Crash: crash, Steps: 120})

	d := fresh(t)
	if err := d.WriteAt(make([]byte, 8192), block.Offset(chunkBytes&^4095%(5<<20)), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	readOnly, err := backing.OpenDirectory(paths[d], backing.Options{ReadOnly: true, Direct: o.Direct})
	if err != nil {
		t.Fatal(err)
	}
	devicetest.RunReadOnly(t, readOnly)
}
