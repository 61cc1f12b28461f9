package disk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
)

// childVariable makes the test binary lock a file, say so and wait.
const childVariable = "TORPOR_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		holdLock(path)
		return
	}
	kerneltest.Main(m)
}

func holdLock(path string) {
	f, err := Open(path, 0)
	if err == nil {
		err = f.Lock()
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return
	}
	os.Stdout.WriteString("locked\n")
	io.Copy(io.Discard, os.Stdin)
}

func create(t *testing.T, m Mode) *File {
	t.Helper()
	f, err := Open(filepath.Join(t.TempDir(), "disk"), m|Create)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// TestVectors transfers more buffers than one call takes, some of them empty.
func TestVectors(t *testing.T) {
	f := create(t, 0)
	want := make([]byte, 3000*7)
	for i := range want {
		want[i] = byte(i * 31 >> 3)
	}
	cut := func(b []byte) (p [][]byte) {
		for i := 0; i < len(b); i += 7 {
			p = append(p, b[i:i+3], nil, b[i+3:i+7])
		}
		return p
	}
	for name, write := range map[string]func(p [][]byte, off int64) error{"plain": f.WriteAt, "durable": f.WriteDurablyAt} {
		if err := errors.Join(f.Truncate(0), write(cut(want), 5)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if err := f.ReadAt(cut(got), 5); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: read something else, %v", name, err)
		}
		if n, err := f.SizeBytes(); n != int64(len(want))+5 || err != nil {
			t.Errorf("%s: size %d, %v", name, n, err)
		}
	}
	if err := f.ReadAt([][]byte{make([]byte, 10)}, int64(len(want))); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), f.Path()) {
		t.Errorf("read across the end: %v", err)
	}
	if err := errors.Join(f.ReadAt(nil, 1<<40), f.WriteAt([][]byte{nil, nil}, 0)); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestSkip(t *testing.T) {
	p := [][]byte{nil, []byte("ab"), nil, []byte("cde")}
	for n, want := range []string{"abcde", "bcde", "cde", "de", "e", ""} {
		if got := string(bytes.Join(skip(p, n), nil)); got != want {
			t.Errorf("%d: %q, not %q", n, got, want)
		}
	}
	if string(bytes.Join(p, nil)) != "abcde" {
		t.Error("the vector was changed")
	}
}

// TestNoDSync writes durably on a file system without RWF_DSYNC.
func TestNoDSync(t *testing.T) {
	f := create(t, 0)
	f.noDSync.Store(true)
	if err := f.WriteDurablyAt([][]byte{[]byte("content")}, 0); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.Path()); string(b) != "content" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestSpace(t *testing.T) {
	f := create(t, 0)
	const page = 4096
	if err := errors.Join(f.Truncate(16*page), f.WriteAt([][]byte{bytes.Repeat([]byte{1}, 4*page)}, 4*page), f.Sync()); err != nil {
		t.Fatal(err)
	}
	data := func(want ...Extent) {
		t.Helper()
		got, err := f.Data(0, 16*page)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	data(Extent{4 * page, 8 * page})
	if err := f.Punch(5*page, page); err != nil {
		t.Fatal(err)
	}
	data(Extent{4 * page, 5 * page}, Extent{6 * page, 8 * page})
	if got, err := f.Data(7*page, page/2); err != nil || !cmp.Equal(got, []Extent{{7 * page, 7*page + page/2}}) {
		t.Errorf("part of an extent: %v, %v", got, err)
	}
	if err := errors.Join(f.Punch(0, 16*page), f.Zero(0, 0)); err != nil {
		t.Fatal(err)
	}
	data()
	if n, err := f.AllocatedBytes(); n != 0 || err != nil {
		t.Errorf("takes %d bytes, %v", n, err)
	}
	if err := f.Allocate(0, 32*page); err != nil {
		t.Fatal(err)
	}
	if n, err := f.AllocatedBytes(); n < 32*page || err != nil {
		t.Errorf("takes %d bytes, %v", n, err)
	}
	if n, err := f.SizeBytes(); n != 32*page || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		fifo:                        unix.ENOTBLK,
		dir:                         unix.ENOTBLK,
		filepath.Join(dir, "other"): unix.ENOENT,
	} {
		for _, m := range []Mode{0, ReadOnly, Direct} {
			if _, err := Open(path, m); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
				t.Errorf("open %s in mode %d: %v, not %v", path, m, err, want)
			}
		}
	}
	if _, err := Open(fifo, Create); !errors.Is(err, unix.EEXIST) {
		t.Errorf("create what is there: %v", err)
	}
	if _, err := OpenDirectory(fifo); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("open a pipe as directory: %v", err)
	}
	f := create(t, 0)
	readOnly, err := Open(f.Path(), ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if err := readOnly.WriteAt([][]byte{{1}}, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("write what is read-only: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	path := t.TempDir()
	d, err := OpenDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := d.Open("a", Create)
	if err != nil {
		t.Fatal(err)
	}
	if f.Path() != filepath.Join(path, "a") {
		t.Errorf("path %s", f.Path())
	}
	if err := errors.Join(f.Close(), d.Rename("a", "b"), d.Sync()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open("a", 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("open by the old name: %v", err)
	}
	if err := d.Remove("b"); err != nil {
		t.Error(err)
	}
	if err := d.Remove("b"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("remove again: %v", err)
	}
	if err := d.Lock(); err != nil {
		t.Error(err)
	}
	again, err := OpenDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Lock(); !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), "this process") {
		t.Errorf("lock again: %v", err)
	}
}

// TestLockNames says which process has the lock, and takes it after that died.
func TestLockNames(t *testing.T) {
	f := create(t, 0)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+f.Path())
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, _ := out.Read(line)
	if string(line[:n]) != "locked\n" {
		t.Errorf("child says %q", line[:n])
	}
	err = f.Lock()
	if who := "process " + strconv.Itoa(child.Process.Pid); !errors.Is(err, unix.EWOULDBLOCK) || !strings.Contains(err.Error(), who) {
		t.Errorf("lock what %s has: %v", who, err)
	}
	child.Process.Kill()
	in.Close()
	child.Wait()
	if err := f.Lock(); err != nil {
		t.Error(err)
	}
}
