package openfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestLocks(t *testing.T) {
	info := Info("pos:\t0\nlock:\t1: FLOCK  ADVISORY  WRITE 2634 fe:00:131 0 EOF\nlock:\t2: OFDLCK ADVISORY  READ -1 fe:00:131 5 9\n" +
		"lock:\t3: POSIX  ADVISORY  WRITE 7 fe:00:131 10 EOF\nlock:\t4: DELEG  ACTIVE    READ 1 fe:00:131 0 EOF\n")
	got, err := info.Locks()
	if err != nil {
		t.Fatal(err)
	}
	want := []Lock{{LockFlock, true, 0, -1}, {LockRange, false, 5, 10}, {LockPOSIX, true, 10, -1}, {LockLease, false, 0, -1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []Info{"lock: 1: FLOCK", "lock: 1: FLOCK  ADVISORY  WRITE 1 fe:00:131 x EOF", "lock: 1: FLOCK  ADVISORY  WRITE 1 fe:00:131 0 x"} {
		if _, err := bad.Locks(); err == nil {
			t.Errorf("parsed %q", bad)
		}
	}
}

func TestScan(t *testing.T) {
	info := Info("eventfd-count:               1f\nsigmask:\tx\n")
	var n uint64
	if err := info.Scan("eventfd-count", "%x", &n); err != nil || n != 0x1f {
		t.Errorf("count %d, %v", n, err)
	}
	if err := info.Scan("ticks", "%d", &n); !errors.Is(err, ErrNoInfo) {
		t.Errorf("a line that is not there: %v", err)
	}
	if err := info.Scan("sigmask", "%d", &n); err == nil || errors.Is(err, ErrNoInfo) {
		t.Errorf("a line that is wrong: %v", err)
	}
}

// TestRoot looks up paths that lead out of a directory.
func TestRoot(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	root, err := OpenRoot(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/../../../file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	below := *root
	if below.fd, err = unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(below.fd)
	for _, path := range []string{"/file", "/../file", "/link"} {
		fd, err := below.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			t.Errorf("open %s: %v", path, err)
			continue
		}
		again, err := below.Reopen(fd, unix.O_WRONLY)
		if err != nil {
			t.Error(err)
		}
		if flags, err := Flags(again); err != nil || flags&unix.O_ACCMODE != unix.O_WRONLY {
			t.Errorf("flags %#o, %v", flags, err)
		}
		unix.Close(fd)
		unix.Close(again)
	}
	if fd, err := root.Open("/proc/self/root/etc", unix.O_PATH, 0); !errors.Is(err, unix.ELOOP) {
		t.Errorf("followed a magic link: %d, %v", fd, err)
	}
}

// TestCopyIsSparse copies data between holes.
func TestCopyIsSparse(t *testing.T) {
	from, err := os.Create(filepath.Join(t.TempDir(), "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := from.WriteAt([]byte("middle"), 10<<20); err != nil {
		t.Fatal(err)
	}
	if err := from.Truncate(20 << 20); err != nil {
		t.Fatal(err)
	}
	extents, err := Extents(int(from.Fd()))
	if err != nil || len(extents) != 1 || extents[0].Start > 10<<20 || extents[0].End < 10<<20+6 {
		t.Fatalf("extents %v, %v", extents, err)
	}
	to, err := NewMemory("to")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(to)
	if err := errors.Join(unix.Ftruncate(to, 20<<20), Copy(to, int(from.Fd()), extents)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 6)
	if _, err := unix.Pread(to, b, 10<<20); err != nil || string(b) != "middle" {
		t.Errorf("read %q, %v", b, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(to, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the copy takes %d bytes, %v", st.Blocks*512, err)
	}
}
