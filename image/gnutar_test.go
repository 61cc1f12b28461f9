package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torpor/kernel/mount"
)

// item is one entry of an archive made by a test.
type item struct {
	tar.Header
	content string
}

var itemTime = time.Unix(1_500_000_000, 0)

func itemDir(name string, mode int64) item {
	return item{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

func itemFile(name string, mode int64, content string) item {
	return item{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content: content}
}

func itemLink(kind byte, name, target string) item {
	return item{Header: tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o777}}
}

// pack makes an archive. Owner and time are set where an item does not.
func pack(t testing.TB, items ...item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, it := range items {
		h := it.Header
		h.Size = int64(len(it.content))
		if h.ModTime.IsZero() {
			h.ModTime = itemTime
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("pack %q: %v", h.Name, err)
		}
		if _, err := w.Write([]byte(it.content)); err != nil {
			t.Fatalf("pack %q: %v", h.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// describe says all there is to an entry, so that trees can be compared.
func describe(t testing.TB, root string) []string {
	t.Helper()
	inodes := map[uint64]string{}
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s mode %o owner %d:%d time %d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d sum %.4x", st.Size, sha256.Sum256(raw))
			if st.Nlink > 1 {
				first, ok := inodes[st.Ino]
				if !ok {
					inodes[st.Ino] = name
				}
				line += " linked to " + first
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			line += " to " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		out = append(out, line+xattrsOf(t, p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func xattrsOf(t testing.TB, p string) string {
	t.Helper()
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(p, list)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	var out string
	for _, name := range names {
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return out
}

// applyByHand does to root what the image specification says of a layer: first
// its whiteouts, then GNU tar.
func applyByHand(t *testing.T, root string, layer []byte, items []item) {
	t.Helper()
	for _, it := range items {
		dir, base := path.Split(it.Name)
		hidden, ok := strings.CutPrefix(base, ".wh.")
		if !ok {
			continue
		}
		names := []string{hidden}
		if base == ".wh..wh..opq" {
			names = nil
			entries, _ := os.ReadDir(filepath.Join(root, dir))
			for _, e := range entries {
				names = append(names, e.Name())
			}
		}
		for _, n := range names {
			if err := os.RemoveAll(filepath.Join(root, dir, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command("tar", "-x", "-p", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*",
		"--exclude=.wh.*", "-C", root, "-f", "-")
	cmd.Stdin = bytes.NewReader(layer)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
}

func sampleLayers() [][]item {
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	ping := itemFile("usr/bin/ping", 0o755, "ping")
	ping.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "x"}
	owned := itemFile("home/file", 0o640, "owned")
	owned.Uid, owned.Gid = 1234, 70000
	sudo := itemFile("usr/bin/sudo", 0o4755, "sudo")
	sudo.Gid = 27
	return [][]item{{
		// Entries of a directory follow it: GNU tar sets its time on leaving it.
		itemDir(".", 0o755), itemDir("usr", 0o755), itemDir("usr/bin", 0o755), ping, sudo,
		itemLink(tar.TypeLink, "usr/bin/ping4", "usr/bin/ping"), itemLink(tar.TypeSymlink, "bin", "usr/bin"),
		itemDir("home", 0o700), owned,
		itemDir("tmp", 0o1777), itemDir("etc", 0o755), itemDir("etc/deep", 0o755), itemDir("etc/deep/er", 0o755),
		itemFile("etc/one", 0o644, "1"), itemFile("etc/two", 0o644, "2"), itemFile("etc/deep/er/x", 0o644, "x"),
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "tmp/fifo", Mode: 0o622}},
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "tmp/null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "tmp/loop", Mode: 0o660, Devmajor: 7, Devminor: 1}},
		itemFile(strings.Repeat("d/", 60)+strings.Repeat("n", 200), 0o600, "far"),
	}, {
		itemDir(".", 0o755), itemDir("etc", 0o750), itemFile("etc/.wh.one", 0, ""), itemDir("etc/deep", 0o711),
		itemFile("etc/deep/.wh..wh..opq", 0, ""), itemFile("etc/deep/new", 0o600, "new"),
		itemDir("tmp", 0o1777), itemFile("tmp/.wh.fifo", 0, ""), itemFile("tmp/.wh.null", 0, ""),
		itemFile(".wh.home", 0, ""), itemFile("file", 0o644, "was nothing"),
	}, {
		// What was a directory is a file and the other way round; what was
		// removed comes back without its old content.
		itemDir(".", 0o711), itemDir("home", 0o755), itemFile("home/other", 0o644, "o"),
		itemDir("etc", 0o755), itemFile("etc/.wh.deep", 0, ""), itemFile("etc/deep", 0o644, "now a file"),
		itemFile(".wh.file", 0, ""), itemDir("file", 0o755), itemFile("file/in", 0o644, "in"),
	}}
}

// An overlay of unpacked layers shows what GNU tar and whiteouts by hand give.
func TestLayersAreWhatGNUTarGives(t *testing.T) {
	requireRoot(t)
	base := t.TempDir()
	byHand := filepath.Join(base, "hand")
	merged := filepath.Join(base, "merged")
	for _, d := range []string{byHand, merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var lower []string
	for i, items := range sampleLayers() {
		layer := pack(t, items...)
		dir := filepath.Join(base, fmt.Sprint("layer", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := unpackLayer(t.Context(), dir, bytes.NewReader(layer)); err != nil {
			t.Fatal(err)
		}
		lower = append([]string{dir}, lower...)
		applyByHand(t, byHand, layer, items)

		if len(lower) == 1 {
			continue // overlayfs wants two; the next step shows this one
		}
		if err := (mount.Overlay{Lower: lower}).Mount(merged); err != nil {
			t.Fatal(err)
		}
		want, got := describe(t, byHand), describe(t, merged)
		if err := mount.Unmount(merged); err != nil {
			t.Fatal(err)
		}
		// Parents without an entry have no particular time.
		drop := func(line string) bool {
			return strings.HasPrefix(line, "d ") || strings.HasPrefix(line, "d/") && strings.Contains(line, " mode 40")
		}
		want, got = slices.DeleteFunc(want, drop), slices.DeleteFunc(got, drop)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after layer %d (-by hand +ours):\n%s", i, diff)
		}
	}
}

// The umask of the process does not show in what is unpacked.
func TestUnpackIgnoresUmask(t *testing.T) {
	requireRoot(t)
	layer := pack(t, itemFile("a/b/c", 0o666, "c"), itemDir("open", 0o777))
	old := syscall.Umask(0o077)
	dir := t.TempDir()
	_, err := unpackLayer(t.Context(), dir, bytes.NewReader(layer))
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"a": 0o755, "a/b": 0o755, "a/b/c": 0o666, "open": 0o777} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", name, st.Mode().Perm(), want)
		}
	}
}
