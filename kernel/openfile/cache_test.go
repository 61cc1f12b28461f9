package openfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCache(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 1<<20)
	want[1<<20-1] = 7
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(SyncData(f), DropCache(f)); err != nil {
		t.Fatal(err)
	}
	var room [10]byte
	if n, err := ReadAt(int(f.Fd()), room[:], 1<<20-3); n != 3 || err != nil || room[2] != 7 {
		t.Errorf("read %d bytes, %v: %v", n, room, err)
	}
	if n, err := ReadAt(int(f.Fd()), room[:], 1<<30); n != 0 || err != nil {
		t.Errorf("behind the end: read %d bytes, %v", n, err)
	}
	if allocs := testing.AllocsPerRun(10, func() {
		var b [10]byte
		ReadAt(int(f.Fd()), b[:], 0)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	f.Close()
	if SyncData(f) == nil {
		t.Error("synced a closed file")
	}
	if _, err := ReadAt(-1, room[:], 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("read nothing: %v", err)
	}
}
