package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"torpor/host"
	"torpor/internal/kerneltest"
)

// TestUpgradeThatFails names binaries that can not be executed: exports go on as
// they were.
func TestUpgradeThatFails(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("nbdinfo"))
	l := newLab(t, host.Layout{Data: 1, Parity: 1}, "", "")
	l.create()
	ctx, dir := context.Background(), t.TempDir()
	e, err := l.client.Export(ctx, "data", ExportSpec{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.client.Attach(ctx, "data", User)
	if err != nil {
		t.Fatal(err)
	}
	device, err := os.OpenFile(a.Device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"not executable": 0o644, "nonsense": 0o755} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("nonsense"), mode); err != nil {
			t.Fatal(err)
		}
		if err := l.client.Upgrade(ctx, path); err == nil {
			t.Errorf("%s was executed", name)
		}
		if _, err := device.WriteAt([]byte(name), 0); err != nil {
			t.Error(err)
		}
		if err := device.Sync(); err != nil {
			t.Error(err)
		}
		if out := run(t, "nbdinfo", "--size", e.URI); strings.TrimSpace(out) != "67108864" {
			t.Errorf("size is %q", out)
		}
		if v := l.status().Volumes[0]; v.Device != a.Device || len(v.Exports) != 1 || v.Problem != "" {
			t.Errorf("volume is %+v", v)
		}
	}
	if err := l.client.Upgrade(ctx, "relative"); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("relative path: %v", err)
	}
	if err := l.client.Detach(ctx, "data", User); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("detached while it is open: %v", err)
	}
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.client.Detach(ctx, "data", User); err != nil {
		t.Error(err)
	}
}

func TestHandoffIsRead(t *testing.T) {
	file := func(text string) int {
		t.Helper()
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Dup(int(f.Fd())) // closed by who reads it
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	if h, err := takeHandoff(0); err != nil || h.Lock != 0 {
		t.Errorf("nothing is %+v, %v", h, err)
	}
	if _, err := takeHandoff(file(`{"version": 2}`)); !errors.Is(err, host.ErrUnsupported) {
		t.Errorf("of another version: %v", err)
	}
	if _, err := takeHandoff(file(`{`)); err == nil {
		t.Error("half a handoff was read")
	}
}
