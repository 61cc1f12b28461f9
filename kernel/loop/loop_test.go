package loop

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

const backingBytes = 32 << 20

// attachFile attaches a device to a new file for the time of the test.
func attachFile(t *testing.T, spec Spec) (Device, string) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root)
	spec.BackingPath = filepath.Join(t.TempDir(), "backing file")
	if err := os.WriteFile(spec.BackingPath, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(spec.BackingPath, backingBytes); err != nil {
		t.Fatal(err)
	}
	d, err := Attach(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Detach(spec.BackingPath, 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	return d, spec.BackingPath
}

func TestAttach(t *testing.T) {
	for name, spec := range map[string]Spec{
		"direct":    {BlockBytes: 4096, DirectIO: true},
		"buffered":  {BlockBytes: 512},
		"read-only": {BlockBytes: 4096, ReadOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			d, path := attachFile(t, spec)
			got, err := d.Info()
			want := Info{BackingPath: path, DirectIO: spec.DirectIO, ReadOnly: spec.ReadOnly, BlockBytes: spec.BlockBytes, SizeBytes: backingBytes}
			if err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			found, err := FindBelow(filepath.Dir(path))
			if err != nil || len(found) != 1 || found[0] != d {
				t.Errorf("found %v, %v, want %v", found, err, d)
			}
			if found, _ := FindBelow(filepath.Dir(path) + "x"); len(found) != 0 {
				t.Errorf("found %v elsewhere", found)
			}
			parsed, err := Parse(d.Path())
			if err != nil || parsed != d {
				t.Errorf("parsed %v, %v, want %v", parsed, err, d)
			}
		})
	}
}

// TestAttachRefusesBufferedIO: /proc has no direct I/O.
func TestAttachRefusesBufferedIO(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.File("/proc/config.gz"))
	_, err := Attach(Spec{BackingPath: "/proc/config.gz", BlockBytes: 4096, DirectIO: true, ReadOnly: true})
	if err == nil {
		t.Fatal("attached")
	}
}

func TestRefresh(t *testing.T) {
	d, path := attachFile(t, Spec{BlockBytes: 4096})
	if err := os.Truncate(path, 2*backingBytes); err != nil {
		t.Fatal(err)
	}
	if err := d.Refresh(); err != nil {
		t.Fatal(err)
	}
	if info, err := d.Info(); err != nil || info.SizeBytes != 2*backingBytes {
		t.Errorf("got %+v, %v", info, err)
	}
}

// TestDetachBusy: what is mounted or open stays attached, and says to whom.
func TestDetachBusy(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("mkfs.ext4"))
	d, path := attachFile(t, Spec{BlockBytes: 4096})
	if out, err := exec.Command("mkfs.ext4", "-q", d.Path()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := t.TempDir()
	if err := unix.Mount(d.Path(), dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	wantBusy(t, d, path, "mount "+dir)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	wantBusy(t, d, path, "(loop.test)")
	f.Close()
	if info, err := d.Info(); err != nil || info.Autoclear {
		t.Errorf("got %+v, %v", info, err)
	}
	if err := d.Detach(path, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if d.attachedTo(path) {
		t.Error("still attached")
	}
	if _, err := d.Info(); err != nil && !errors.Is(err, host.ErrNotFound) {
		t.Error(err)
	}
}

func wantBusy(t *testing.T, d Device, path, user string) {
	t.Helper()
	err := d.Detach(path, 100*time.Millisecond)
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), user) {
		t.Errorf("got %v, want EBUSY and %q", err, user)
	}
	if !d.attachedTo(path) {
		t.Errorf("no longer attached")
	}
}

// TestDetachOthers leaves a device alone that has become another file's.
func TestDetachOthers(t *testing.T) {
	d, path := attachFile(t, Spec{BlockBytes: 4096})
	if err := d.Detach(path+"x", time.Second); err != nil {
		t.Fatal(err)
	}
	if !d.attachedTo(path) {
		t.Error("detached")
	}
}

func TestParse(t *testing.T) {
	for _, path := range []string{"", "loop1", "/dev/loop", "/dev/loop-1", "/dev/loopx", "/dev/sda"} {
		if d, err := Parse(path); !errors.Is(err, host.ErrInvalid) {
			t.Errorf("Parse(%q) = %v, %v", path, d, err)
		}
	}
}
