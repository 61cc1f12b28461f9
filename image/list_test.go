package image

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listTree describes everything below dir, one line an entry: all that a
// program could see of it, except access times.
func listTree(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	linked := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %o %d:%d rdev %x mtime %d.%09d", name, st.Mode, st.Uid, st.Gid, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %x", st.Size, sha256.Sum256(content))
		case syscall.S_IFLNK:
			to, _ := os.Readlink(p)
			line += " -> " + to
		}
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR && st.Nlink > 1 {
			if first, ok := linked[st.Ino]; ok {
				line += " same as " + first
			} else {
				linked[st.Ino] = name
			}
		}
		lines = append(lines, line+xattrs(t, p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func xattrs(t testing.TB, p string) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for key := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if key == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, key, value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf(" %s=%x", key, value[:n]))
	}
	sort.Strings(out)
	return strings.Join(out, "")
}

// names lists the paths of a listing that begin with a name.
func names(lines []string) []string {
	var out []string
	for _, l := range lines {
		name, _, _ := strings.Cut(l, " ")
		out = append(out, name)
	}
	return out
}
