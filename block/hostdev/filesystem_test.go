package hostdev

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"torpor/internal/kerneltest"
	"torpor/kernel/mount"
)

// fileSystem is one that people put on volumes, and how to check it.
type fileSystem struct {
	name        string
	make, check []string // the device follows
	sizeBytes   int64
}

var fileSystems = []fileSystem{
	{name: "ext4", make: []string{"mkfs.ext4", "-q"}, check: []string{"e2fsck", "-f", "-n"}, sizeBytes: 128 << 20},
	{name: "xfs", make: []string{"mkfs.xfs", "-q"}, check: []string{"xfs_repair", "-n"}, sizeBytes: 512 << 20},
	{name: "btrfs", make: []string{"mkfs.btrfs", "-q"}, check: []string{"btrfs", "check", "--readonly"}, sizeBytes: 256 << 20},
}

// need skips the test if programs are missing.
func (f fileSystem) need(t *testing.T) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program(f.make[0]), kerneltest.Program(f.check[0]))
}

func (f fileSystem) format(t *testing.T, device string) {
	t.Helper()
	run(t, f.make[0], append(f.make[1:len(f.make):len(f.make)], device)...)
}

func (f fileSystem) mount(t *testing.T, device string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-t", f.name, device, dir)
	t.Cleanup(func() {
		if mounted, _ := mount.Mounted(dir); mounted {
			run(t, "umount", dir)
		}
	})
	return dir
}

func (f fileSystem) verify(t *testing.T, device string) {
	t.Helper()
	run(t, f.check[0], append(f.check[1:len(f.check):len(f.check)], device)...)
}

// TestFileSystems copies a tree to each file system, reads it back after an
// unmount, trims what was removed, and has the checker look.
func TestFileSystems(t *testing.T) {
	for _, f := range fileSystems {
		t.Run(f.name, func(t *testing.T) {
			f.need(t)
			dev := newDevice(t, f.sizeBytes)
			e := attach(t, dev, Spec{})
			f.format(t, e.Path())
			source := sourceTree(t)
			dir := f.mount(t, e.Path())
			run(t, "cp", "-a", source, dir+"/tree")
			run(t, "umount", dir)
			dir = f.mount(t, e.Path())
			run(t, "diff", "-r", "--no-dereference", source, dir+"/tree")
			used := dev.usedBytes(t)
			run(t, "rm", "-r", dir+"/tree")
			run(t, "umount", dir) // xfs removes in the background
			dir = f.mount(t, e.Path())
			run(t, "fstrim", dir)
			if left := dev.usedBytes(t); left >= used/2 {
				t.Errorf("fstrim left %d of %d bytes", left, used)
			}
			run(t, "umount", dir)
			f.verify(t, e.Path())
			if dev.flushes.Load() == 0 || dev.discards.Load() == 0 {
				t.Errorf("%d flushes, %d discards", dev.flushes.Load(), dev.discards.Load())
			}
		})
	}
}

// sourceTree is some of Go's own sources.
func sourceTree(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(string(root[:len(root)-1]), "src", "net")
	if _, err := os.Stat(dir); err != nil {
		t.Skip(err)
	}
	return dir
}
