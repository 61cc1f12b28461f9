package object

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/kernel/openfile"
)

func TestDeletedFile(t *testing.T) {
	tr := newTransfer(t)
	path := filepath.Join(tr.from.root, "data", "temp")
	check(t, os.WriteFile(path, []byte("head"), 0o640))
	fd := tr.from.openPath("/data/temp", unix.O_RDWR)
	check(t, unix.Ftruncate(fd, 64<<20)) // a hole
	_, err := unix.Pwrite(fd, []byte("tail"), 64<<20-4)
	check(t, err)
	_, err = unix.Seek(fd, 2, unix.SEEK_SET)
	check(t, err)
	a := tr.add(fd)
	b := tr.add(tr.from.openPath("/data/temp", unix.O_RDONLY))
	check(t, os.Remove(path))
	check(t, os.WriteFile(path, []byte("new"), 0o640)) // replaced
	tr.describe()
	var st unix.Stat_t
	check(t, unix.Stat(filepath.Join(tr.dir, contentName(0)), &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("content of 8 bytes takes %d", st.Blocks*512)
	}
	tr.to = newScratch(t)
	tr.make()
	buffer := make([]byte, 2)
	_, err = unix.Read(tr.fds[a], buffer)
	if err != nil || string(buffer) != "ad" {
		t.Errorf("read %q (%v) at the offset", buffer, err)
	}
	_, err = unix.Pwrite(tr.fds[a], []byte("seen"), 64<<20-4)
	check(t, err)
	_, err = unix.Seek(tr.fds[b], 64<<20-4, unix.SEEK_SET)
	check(t, err)
	wantRead(t, tr.fds[b], "seen") // one new inode
	check(t, unix.Fstat(tr.fds[b], &st))
	if st.Nlink != 0 || st.Mode&0o777 != 0o640 {
		t.Errorf("%d links, mode %o", st.Nlink, st.Mode)
	}
	if target, err := openfile.PathOf(tr.fds[a]); err != nil || strings.HasPrefix(target, "/memfd:") {
		t.Errorf("came back as %s (%v), not in the root file system", target, err)
	}
	again, err := Make(tr.to.Container, tr.dir, tr.specs, tr.options)
	check(t, err)
	tr.fds = append(tr.fds, again...)
	_, err = unix.Pread(again[a], buffer, 64<<20-4)
	if err != nil || string(buffer) != "ta" {
		t.Errorf("a second copy has %q (%v): not private", buffer, err)
	}
}

func TestMemoryFile(t *testing.T) {
	tr := newTransfer(t)
	fd, err := unix.MemfdCreate("thing", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	check(t, err)
	write(t, fd, "sealed")
	check(t, openfile.Seal(fd, unix.F_SEAL_WRITE|unix.F_SEAL_GROW))
	tr.add(fd)
	tr.move()
	if target, err := openfile.PathOf(tr.fds[0]); err != nil || target != "/memfd:thing (deleted)" {
		t.Errorf("came back as %s, %v", target, err)
	}
	_, err = unix.Write(tr.fds[0], []byte("x"))
	wantErrno(t, err, unix.EPERM)
	if seals, ok := openfile.Seals(tr.fds[0]); !ok || seals != unix.F_SEAL_WRITE|unix.F_SEAL_GROW {
		t.Errorf("seals %#x", seals)
	}
	if at, err := unix.Seek(tr.fds[0], 0, unix.SEEK_CUR); err != nil || at != 6 {
		t.Errorf("offset %d, %v", at, err)
	}
}

// TestSharedMemory maps a memory file twice and anonymous shared memory once.
func TestSharedMemory(t *testing.T) {
	tr := newTransfer(t)
	anonymous, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	check(t, err)
	defer unix.Munmap(anonymous)
	copy(anonymous, "anonymous")
	a := tr.addUse(openMapping(t, "/dev/zero (deleted)", unix.O_RDWR), UseMapped)
	shm := tr.from.openPath("/dev/shm/segment", unix.O_RDWR|unix.O_CREAT)
	write(t, shm, "posix")
	b := tr.add(shm)
	again := tr.from.openPath("/dev/shm/segment", unix.O_RDONLY)
	c := tr.addUse(again, UseMapped)
	tr.from.do(func() error { return unix.Unlink("/dev/shm/segment") })
	tr.open[b].Target += " (deleted)"
	tr.open[c].Target += " (deleted)"
	tr.move()
	mapped, err := unix.Mmap(tr.fds[a], 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(t, err)
	defer unix.Munmap(mapped)
	if !strings.HasPrefix(string(mapped), "anonymous") {
		t.Errorf("mapping holds %q", mapped[:9])
	}
	_, err = unix.Pwrite(tr.fds[b], []byte("shared"), 0)
	check(t, err)
	wantRead(t, tr.fds[c], "shared")
	_, err = unix.Write(tr.fds[c], []byte("x"))
	wantErrno(t, err, unix.EBADF)
}

// openMapping opens a file that this process maps.
func openMapping(t *testing.T, name string, flags int) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	check(t, err)
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, name+"\n") {
			area, _, _ := strings.Cut(line, " ")
			start, end, _ := strings.Cut(area, "-")
			from, _ := strconv.ParseUint(start, 16, 64)
			to, _ := strconv.ParseUint(end, 16, 64)
			fd, err := unix.Open(fmt.Sprintf("/proc/self/map_files/%x-%x", from, to), flags|unix.O_CLOEXEC, 0)
			check(t, err)
			return fd
		}
	}
	t.Fatalf("nothing maps %s", name)
	return -1
}

func TestContentLimit(t *testing.T) {
	tr := newTransfer(t)
	for range 3 {
		fd := tr.from.openPath("/data", unix.O_TMPFILE|unix.O_RDWR)
		check(t, unix.Fallocate(fd, 0, 0, 1<<20))
		tr.add(fd)
	}
	d := &describer{open: tr.open}
	for i := range tr.open {
		err := d.contents.add(d, i, tr.open[i].Target, contentMost/2-1)
		if want := i == 2; errors.Is(err, errTooMuch) != want {
			t.Errorf("content %d: %v", i, err)
		}
	}
	if len(d.reasons) != 1 || !strings.Contains(d.reasons[0], "with 255 MB of content; a checkpoint takes 512 MB in all") {
		t.Errorf("reasons: %q", d.reasons)
	}
}

func TestDamagedContent(t *testing.T) {
	tr := newTransfer(t)
	fd, err := unix.MemfdCreate("thing", unix.MFD_CLOEXEC)
	check(t, err)
	write(t, fd, "content")
	tr.add(fd)
	tr.describe()
	check(t, os.Truncate(filepath.Join(tr.dir, contentName(0)), 3))
	tr.to = newScratch(t)
	if _, err := Make(tr.to.Container, tr.dir, tr.specs, tr.options); !errors.Is(err, host.ErrCorrupt) {
		t.Errorf("made from a damaged file: %v", err)
	}
}
