package tree

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	for name, replace := range map[string]func(from, to string) error{"at once": Replace, "in steps": replaceInSteps} {
		t.Run(name, func(t *testing.T) { testReplace(t, replace) })
	}
}

func testReplace(t *testing.T, replace func(from, to string) error) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	fill := func(path, content string) {
		t.Helper()
		if err := errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "file"), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(path, content string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(path, "file")); err != nil || string(b) != content {
			t.Errorf("%s has %q (%v), want %q", path, b, err, content)
		}
	}
	fill(from, "first")
	if err := Replace(from, to); err != nil {
		t.Fatal(err)
	}
	want(to, "first")
	if _, err := os.Lstat(from); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", from, err)
	}
	fill(from, "second")
	if err := replace(from, to); err != nil {
		t.Fatal(err)
	}
	want(to, "second")
	want(from, "first")
	if err := replace(filepath.Join(dir, "missing"), to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want %v", err, os.ErrNotExist)
	}
	want(to, "second")
}
