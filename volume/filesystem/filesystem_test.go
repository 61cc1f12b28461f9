package filesystem

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"torpor/host"
	"torpor/internal/kerneltest"
)

// sparse is a file that file systems can be made on.
func sparse(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(400 << 20); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMakesAndDetects(t *testing.T) {
	for _, fs := range []host.FileSystem{host.Ext4, host.XFS, host.Btrfs} {
		t.Run(string(fs), func(t *testing.T) {
			kerneltest.Require(t, kerneltest.Program("mkfs."+string(fs)))
			device, ctx := sparse(t), context.Background()
			if got, err := Detect(device); got != "" || err != nil {
				t.Errorf("on zeros is %q, %v", got, err)
			}
			if err := Make(ctx, fs, device); err != nil {
				t.Fatal(err)
			}
			if got, err := Detect(device); got != fs || err != nil {
				t.Errorf("detected %q, %v", got, err)
			}
			if err := Check(ctx, fs, device); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCheckRepairs lets e2fsck repair what it may, and names what it may not.
func TestCheckRepairs(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("mkfs.ext4"), kerneltest.Program("debugfs"))
	device, ctx := sparse(t), context.Background()
	if err := Make(ctx, host.Ext4, device); err != nil {
		t.Fatal(err)
	}
	debug := func(command string) {
		t.Helper()
		if out, err := exec.Command("debugfs", "-w", "-R", command, device).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	debug("set_super_value state 2") // had errors
	debug("set_super_value free_blocks_count 5")
	if err := Check(ctx, host.Ext4, device); err != nil {
		t.Errorf("what can be repaired: %v", err)
	}
	debug("set_super_value state 2")
	debug("clri <2>") // no root directory
	if err := Check(ctx, host.Ext4, device); err == nil || !strings.Contains(err.Error(), "e2fsck -f") {
		t.Errorf("what can not be repaired: %v", err)
	}
}

func TestErrors(t *testing.T) {
	ctx := context.Background()
	if err := Make(ctx, "ntfs", sparse(t)); err == nil {
		t.Error("made ntfs")
	}
	if err := Grow(ctx, "ntfs", "/dev/none", "/none"); err == nil {
		t.Error("grown ntfs")
	}
	if _, err := Detect("/does/not/exist"); err == nil {
		t.Error("detected on nothing")
	}
	kerneltest.Require(t, kerneltest.Program("mkfs.ext4"))
	if err := Make(ctx, host.Ext4, "/does/not/exist"); err == nil || !strings.Contains(err.Error(), "mkfs.ext4") {
		t.Errorf("made on nothing: %v", err)
	}
	t.Setenv("PATH", "/nowhere")
	if _, err := run(ctx, "e2fsprogs", "mkfs.no"); err == nil || !strings.Contains(err.Error(), "Debian has it in e2fsprogs") {
		t.Errorf("program that is missing: %v", err)
	}
}
