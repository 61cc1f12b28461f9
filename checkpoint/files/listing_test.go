package files

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"torpor/kernel/tree"
)

// newTree is a small tree, some time old.
func newTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"a/b", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/b/code", "a/data", "top"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func list(t *testing.T, dir string, o Options) *Listing {
	t.Helper()
	l, err := List(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestDifference makes one change after the other: each must be seen.
func TestDifference(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"content of the same length", func(d string) error { return os.WriteFile(d+"/a/b/code", []byte("a/b/cOde"), 0o644) }, "a/b"},
		{"length", func(d string) error { return os.WriteFile(d+"/a/data", []byte("more than before"), 0o644) }, "a"},
		{"mode", func(d string) error { return os.Chmod(d+"/top", 0o600) }, "."},
		{"new file", func(d string) error { return os.WriteFile(d+"/a/new", nil, 0o644) }, "a"},
		{"removed file", func(d string) error { return os.Remove(d + "/top") }, "."},
		{"new directory", func(d string) error { return os.Mkdir(d+"/a/b/c", 0o755) }, "a/b"},
		{"removed directory", func(d string) error { return os.RemoveAll(d + "/a/b") }, "a"},
		{"mode of a directory", func(d string) error { return os.Chmod(d+"/a/b", 0o700) }, "a"},
		{"replaced by a twin", func(d string) error {
			info, err := os.Stat(d + "/a/data")
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(d+"/a/x", []byte("a/dAta"), 0o644), os.Chtimes(d+"/a/x", info.ModTime(), info.ModTime()), os.Rename(d+"/a/x", d+"/a/data"))
		}, "a"},
		{"time set back", func(d string) error {
			info, err := os.Stat(d + "/a/data")
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(d+"/a/data", []byte("a/dAta"), 0o644), os.Chtimes(d+"/a/data", info.ModTime(), info.ModTime()))
		}, "a"},
		{"in a directory that is skipped", func(d string) error { return os.WriteFile(d+"/tmp/x", nil, 0o644) }, ""},
		{"a socket", func(d string) error {
			l, err := net.Listen("unix", d+"/a/s")
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := newTree(t)
			before := list(t, dir, Options{Skip: []string{"tmp"}})
			time.Sleep(10 * time.Millisecond) // a tick of the file system's clock
			if err := test.change(dir); err != nil {
				t.Fatal(err)
			}
			if got := before.Difference(list(t, dir, Options{Skip: []string{"tmp"}})); got != test.want {
				t.Errorf("difference %q, want %q", got, test.want)
			}
		})
	}
}

// TestCopiedTree compares a tree with its copy.
func TestCopiedTree(t *testing.T) {
	dir, to := newTree(t), t.TempDir()
	before := list(t, dir, Options{Copied: true})
	if _, err := tree.Copy(dir, to, nil, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := before.Difference(list(t, to, Options{Copied: true})); got != "" {
		t.Errorf("the copy differs in %s", got)
	}
	if got := list(t, dir, Options{}).Difference(list(t, to, Options{})); got == "" {
		t.Error("a copy passes for the original")
	}
}

func TestOneFile(t *testing.T) {
	path := filepath.Join(newTree(t), "top")
	before := list(t, path, Options{})
	time.Sleep(10 * time.Millisecond)
	if err := os.WriteFile(path, []byte("TOP"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := before.Difference(list(t, path, Options{})); got != "." {
		t.Errorf("difference %q", got)
	}
	if _, err := List(path+"x", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
}

func TestTooMany(t *testing.T) {
	l := &lister{root: newTree(t), count: most - 3}
	info, err := os.Lstat(l.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.directory(".", info); !errors.Is(err, ErrTooMany) {
		t.Errorf("%v, want %v", err, ErrTooMany)
	}
}
