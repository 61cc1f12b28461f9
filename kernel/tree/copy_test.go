package tree

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCopy copies one entry of every kind and compares names, modes, owners
// and contents, then what a comparison of those does not show.
func TestCopy(t *testing.T) {
	from, dir, _ := newTree(t)
	old := time.Unix(1_000_000_000, 5)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(from.Mkdir("d"))
	must(from.Mkdir("skipped"))
	f, err := from.Create("d/file")
	must(err)
	_, err = f.WriteAt([]byte("end"), 10<<20)
	must(err)
	must(SetFile(f, Meta{Mode: 0o4755, UID: 12, GID: 13, ModTime: old, Xattrs: map[string]string{"trusted.x": "y"}}))
	must(f.Close())
	must(from.Link("d/file", "d/second"))
	must(from.Symlink("/etc/passwd", "d/link"))
	must(from.Fifo("d/fifo"))
	must(from.Whiteout("d/gone"))
	must(from.SetOpaque("d"))
	must(from.Set("d", Meta{Mode: 0o1777, UID: 7, GID: 8, ModTime: old, Xattrs: map[string]string{OpaqueXattr: "y"}}))
	must(from.Set("d/link", Meta{UID: 3, ModTime: old}))
	to := t.TempDir()
	n, err := Copy(dir, to, []string{"skipped"}, 1<<20)
	must(err)
	if n < 3 || n > 8192 {
		t.Errorf("copied %d bytes of content: holes were not kept", n)
	}
	must(os.Remove(filepath.Join(dir, "skipped")))
	if got, want := strings.ReplaceAll(snapshot(t, to, "-"), to, ""), strings.ReplaceAll(snapshot(t, dir, "-"), dir, ""); got != want {
		t.Errorf("copy is\n%s\nwant\n%s", got, want)
	}
	var first, second, d unix.Stat_t
	must(unix.Stat(to+"/d/file", &first))
	must(unix.Stat(to+"/d/second", &second))
	must(unix.Stat(to+"/d", &d))
	if first.Ino != second.Ino || first.Mtim.Nano() != old.UnixNano() || d.Mtim.Nano() != old.UnixNano() || first.Blocks*512 > 64<<10 {
		t.Errorf("file %+v, second %+v, directory %+v", first, second, d)
	}
	value := make([]byte, 10)
	if k, err := unix.Lgetxattr(to+"/d/file", "trusted.x", value); err != nil || string(value[:k]) != "y" {
		t.Errorf("attribute %q, %v", value[:max(k, 0)], err)
	}
	if _, err := Copy(dir, t.TempDir(), nil, 2); !errors.Is(err, unix.EFBIG) {
		t.Errorf("copied more than was allowed: %v", err)
	}
}
