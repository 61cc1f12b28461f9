package mount

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
)

// TestDevice mounts a file system on a loop device, and finds what is mounted.
func TestDevice(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("mkfs.ext4"), kerneltest.Program("losetup"))
	ownNamespace(t)
	d := dirs(t, "with blank", "other")
	image := filepath.Join(filepath.Dir(d[0]), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "mkfs.ext4 -q "+image+" && losetup --find --show "+image).CombinedOutput()
	device := strings.TrimSpace(string(out))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	if source, err := Source(d[0]); source != "" || err != nil {
		t.Errorf("nothing is mounted, and it is %q, %v", source, err)
	}
	if source, err := Source("/does/not/exist"); source != "" || err != nil {
		t.Errorf("nothing is there, and it is %q, %v", source, err)
	}
	if err := Device("ext4", device, d[0], []string{"discard", "commit=7"}); err != nil {
		t.Fatal(err)
	}
	if source, err := Source(d[0]); source != device || err != nil {
		t.Errorf("mounted is %q, %v; want %s", source, err, device)
	}
	write(t, filepath.Join(d[0], "file"), "content")
	if err := Sync(d[0]); err != nil {
		t.Error(err)
	}
	if err := Device("ext4", device, d[1], []string{"nonsense"}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("odd option: %v", err)
	}
	if err := Unmount(d[0]); err != nil {
		t.Fatal(err)
	}
	if err := Device("xfs", device, d[1], nil); err == nil {
		t.Error("ext4 is mounted as xfs")
	}
}
