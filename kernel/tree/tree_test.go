package tree

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTree opens a tree in a directory beside which a canary lies, and checks
// at the end that the canary is as it was.
func newTree(t testing.TB) (tree *Tree, dir, outside string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: owners, device nodes, trusted attributes")
	}
	base := t.TempDir()
	dir, outside = filepath.Join(base, "in"), filepath.Join(base, "out")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(outside+"/canary", []byte("alive"), 0o640); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, base, "in")
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tree.Close()
		if after := snapshot(t, base, "in"); after != before {
			t.Errorf("outside of the tree changed:\n%s\nwas\n%s", after, before)
		}
	})
	return tree, dir, outside
}

// snapshot lists names, modes, owners and contents below base, without the
// children of skip.
func snapshot(t testing.TB, base, skip string) string {
	t.Helper()
	var out string
	err := filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == filepath.Join(base, skip) {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		content := ""
		if d.Type().IsRegular() {
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = string(raw)
		}
		if p != base {
			out += path.Join(p) + " " + fs.FileMode(st.Mode).String() + " " + content + "\n"
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each way out of the tree that a name or a link can spell ends inside it.
func TestNamesStayInside(t *testing.T) {
	tree, dir, outside := newTree(t)
	must(t, tree.Symlink(outside, "absolute"))
	must(t, tree.Symlink("../out", "relative"))
	must(t, tree.Symlink("../../../../../../../../../../../..", "up"))
	must(t, tree.Symlink("relative", "twice"))
	must(t, tree.Symlink("/proc/self/root", "magic"))
	must(t, tree.Symlink("canary", "file"))
	for _, parent := range []string{"absolute", "relative", "twice", "magic", "../out", "a/../../out", "/../out", "up" + outside} {
		name := parent + "/canary"
		if f, err := tree.Create(name); err == nil {
			f.Close()
			t.Errorf("create %q worked", name)
		}
		for what, err := range map[string]error{
			"mkdir":   tree.Mkdir(name),
			"symlink": tree.Symlink("x", name),
			"link":    tree.Link(name, "linked"),
			"fifo":    tree.Fifo(name),
			"device":  tree.CharDevice(name, 1, 3),
			"set":     tree.Set(name, Meta{Mode: 0o777, UID: 7}),
			"opaque":  tree.SetOpaque(name),
		} {
			if err == nil {
				t.Errorf("%s %q worked", what, name)
			}
		}
		if err := tree.Remove(name); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("remove %q: %v", name, err)
		}
		if kind, err := tree.Lstat(name); err == nil && kind != Missing {
			t.Errorf("lstat %q sees %v", name, kind)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 6 {
		t.Errorf("tree has %d entries (%v), want the 6 links", len(entries), err)
	}
}

// The last component is never followed, so a link can not be written through.
func TestLastComponentIsNotFollowed(t *testing.T) {
	tree, _, outside := newTree(t)
	must(t, tree.Symlink(outside+"/canary", "link"))
	if f, err := tree.Create("link"); !errors.Is(err, unix.EEXIST) {
		f.Close()
		t.Errorf("create over a link: %v, want EEXIST", err)
	}
	must(t, tree.Set("link", Meta{Mode: 0o777, UID: 9, GID: 9, ModTime: time.Unix(1, 0)}))
	must(t, tree.Link("link", "second")) // of the link itself
	if kind, err := tree.Lstat("second"); err != nil || kind != Symlink {
		t.Errorf("second name of a link is %v (%v), want a link", kind, err)
	}
	if err := tree.Remove("link"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", ".", "..", "a/..", "a/", "nul\x00"} {
		if err := tree.Fifo(name); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("make node %q: %v, want EINVAL", name, err)
		}
	}
}

// Links that lead inside are followed, absolute ones from the tree's top.
func TestLinksInsideAreFollowed(t *testing.T) {
	tree, dir, _ := newTree(t)
	must(t, tree.Mkdir("usr"))
	must(t, tree.Mkdir("usr/bin"))
	must(t, tree.Symlink("/usr/bin", "bin"))
	must(t, tree.Symlink("../../../../usr/bin", "usr/up"))
	for _, name := range []string{"bin/a", "usr/up/b"} {
		f, err := tree.Create(name)
		must(t, err)
		must(t, f.Close())
	}
	for _, name := range []string{"a", "b"} {
		if _, err := os.Lstat(filepath.Join(dir, "usr/bin", name)); err != nil {
			t.Error(err)
		}
	}
}

// Removing a directory follows no link in it, and the cached parent does not
// outlive it.
func TestRemoveFollowsNoLink(t *testing.T) {
	tree, dir, outside := newTree(t)
	must(t, tree.Mkdir("d"))
	must(t, tree.Mkdir("d/e"))
	must(t, tree.Symlink(outside, "d/e/out"))
	must(t, tree.Symlink(outside+"/canary", "d/file"))
	must(t, tree.Remove("d"))
	if err := tree.Fifo("d/e/late"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("make node in a removed directory: %v, want ENOENT", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("tree has %d entries (%v), want none", len(entries), err)
	}
	must(t, tree.Remove("never/there"))
}

// Capabilities and set-user-ID bits are still there after the owner is set.
func TestMetadata(t *testing.T) {
	tree, dir, _ := newTree(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	when := time.Unix(1234567890, 123456789)
	f, err := tree.Create("file")
	must(t, err)
	must(t, SetFile(f, Meta{Mode: 0o6755, UID: 12345, GID: 54321, ModTime: when,
		Xattrs: map[string]string{"security.capability": capability, "user.a": "b"}}))
	must(t, f.Close())
	var st unix.Stat_t
	must(t, unix.Lstat(dir+"/file", &st))
	if st.Uid != 12345 || st.Gid != 54321 || st.Mode&0o7777 != 0o6755 || time.Unix(st.Mtim.Unix()) != when {
		t.Errorf("file has owner %d:%d, mode %o, time %v", st.Uid, st.Gid, st.Mode&0o7777, time.Unix(st.Mtim.Unix()))
	}
	buf := make([]byte, 64)
	n, err := unix.Getxattr(dir+"/file", "security.capability", buf)
	if err != nil || string(buf[:n]) != capability {
		t.Errorf("capability is %x (%v)", buf[:max(n, 0)], err)
	}
	must(t, tree.Whiteout("gone"))
	if kind, err := tree.Lstat("gone"); err != nil || kind != Whiteout {
		t.Errorf("whiteout is %v (%v)", kind, err)
	}
	must(t, tree.Mkdir("opaque"))
	must(t, tree.SetOpaque("opaque"))
	n, err = unix.Getxattr(dir+"/opaque", OpaqueXattr, buf)
	if err != nil || string(buf[:n]) != "y" {
		t.Errorf("opaque mark is %q (%v)", buf[:max(n, 0)], err)
	}
}

// FuzzNames makes a link and then acts through names of the fuzzer's choice.
func FuzzNames(f *testing.F) {
	f.Add("../out", "l", "l/canary")
	f.Add("/", "l", "l/../../out/canary")
	f.Add("..", "a", "a/a/a/out/canary")
	f.Fuzz(func(t *testing.T, target, link, name string) {
		tree, _, _ := newTree(t)
		// Errors are fine; leaving the tree is what newTree's end looks for.
		_ = tree.Symlink(target, link)
		_ = tree.Set(name, Meta{Mode: 0o777, UID: 1})
		_ = tree.Remove(name)
		_ = tree.Mkdir(name)
		if file, err := tree.Create(name + "/x"); err == nil {
			file.Close()
		}
		_ = tree.Link(name, link+"2")
	})
}
