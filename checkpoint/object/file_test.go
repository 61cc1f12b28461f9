package object

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/host"
)

func TestFileByPath(t *testing.T) {
	tr := newTransfer(t)
	path := filepath.Join(tr.from.root, "data", "log")
	check(t, os.WriteFile(path, []byte("0123456789"), 0o640))
	fd := tr.from.openPath("/data/log", unix.O_RDWR|unix.O_APPEND|unix.O_NONBLOCK)
	_, err := unix.Seek(fd, 4, unix.SEEK_SET)
	check(t, err)
	again, err := unix.Dup(fd)
	check(t, err)
	a, b := tr.add(fd), tr.add(again)
	other := tr.add(tr.from.openPath("/data/log", unix.O_WRONLY))
	dir := tr.addUse(tr.from.openPath("/data", unix.O_PATH|unix.O_DIRECTORY), UseDirectory)
	null := tr.add(tr.from.openPath("/dev/null", unix.O_RDWR))
	status := tr.add(tr.from.openPath("/proc/1/status", unix.O_RDONLY))
	tr.describe()
	tr.to = newScratch(t)
	check(t, os.WriteFile(filepath.Join(tr.to.root, "data", "log"), []byte("abcdefghij and more"), 0o640))
	tr.make()
	wantFlags(t, tr.fds[a], unix.O_RDWR|unix.O_APPEND|unix.O_NONBLOCK)
	wantFlags(t, tr.fds[other], unix.O_WRONLY)
	wantRead(t, tr.fds[a], "efghij and more")
	if at, err := unix.Seek(tr.fds[b], 0, unix.SEEK_CUR); err != nil || at != 19 {
		t.Errorf("the duplicate's offset is %d (%v): not the same open file", at, err)
	}
	if at, err := unix.Seek(tr.fds[other], 0, unix.SEEK_CUR); err != nil || at != 0 {
		t.Errorf("the second open file's offset is %d (%v)", at, err)
	}
	write(t, tr.fds[null], "x")
	wantFlags(t, tr.fds[dir], unix.O_PATH|unix.O_DIRECTORY)
	if fd, err := unix.Openat(tr.fds[dir], "log", unix.O_RDONLY, 0); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
	if b := make([]byte, 5); true {
		if n, err := unix.Read(tr.fds[status], b); err != nil || string(b[:n]) != "Name:" {
			t.Errorf("read %q, %v", b, err)
		}
	}
}

func TestFixedFileChanged(t *testing.T) {
	tr := newTransfer(t)
	path := filepath.Join(tr.from.root, "data", "program")
	check(t, os.WriteFile(path, []byte("text"), 0o755))
	old := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	check(t, os.Chtimes(path, old, old))
	tr.addUse(tr.from.openPath("/data/program", unix.O_RDONLY), UseExecutable)
	tr.addUse(tr.from.openPath("/data/program", unix.O_RDWR), UseMapped)
	tr.describe()
	tr.to = newScratch(t)
	path = filepath.Join(tr.to.root, "data", "program")
	for _, change := range []struct {
		content, says string
		time          time.Time
	}{{"text", "changed at", old.Add(time.Second)}, {"other", "5 bytes now, not 4", old}} {
		check(t, os.WriteFile(path, []byte(change.content), 0o755))
		check(t, os.Chtimes(path, change.time, change.time))
		_, err := Make(tr.to.Container, tr.dir, tr.specs, tr.options)
		if !errors.Is(err, host.ErrCorrupt) || !strings.Contains(err.Error(), "/data/program") || !strings.Contains(err.Error(), change.says) {
			t.Errorf("a changed program: %v, want %q", err, change.says)
		}
	}
	check(t, os.WriteFile(path, []byte("text"), 0o755))
	check(t, os.Chtimes(path, old, old))
	tr.make()
	wantRead(t, tr.fds[0], "text")
}

// TestPathStaysInside follows links that lead out of the container.
func TestPathStaysInside(t *testing.T) {
	tr := newTransfer(t)
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, []byte("host"), 0o644))
	check(t, os.Mkdir(filepath.Join(tr.from.root, "data", "dir"), 0o755))
	check(t, os.WriteFile(filepath.Join(tr.from.root, "data", "dir", "secret"), []byte("mine"), 0o644))
	tr.add(tr.from.openPath("/data/dir/secret", unix.O_RDWR))
	tr.describe()
	tr.to = newScratch(t)
	check(t, os.Symlink(filepath.Dir(secret), filepath.Join(tr.to.root, "data", "dir")))
	if fds, err := Make(tr.to.Container, tr.dir, tr.specs, tr.options); !errors.Is(err, unix.ENOENT) {
		t.Errorf("opened %v through a link out of the container: %v", fds, err)
	}
}

func TestNamedPipe(t *testing.T) {
	tr := newTransfer(t)
	check(t, unix.Mkfifo(filepath.Join(tr.from.root, "data", "fifo"), 0o600))
	r := tr.add(tr.from.openPath("/data/fifo", unix.O_RDONLY|unix.O_NONBLOCK))
	w := tr.add(tr.from.openPath("/data/fifo", unix.O_WRONLY|unix.O_NONBLOCK))
	write(t, tr.open[w].FD, "x")
	tr.refused("the named pipe /data/fifo, with 1 unread bytes")
	wantRead(t, tr.open[r].FD, "x")
	tr.open[r], tr.open[w] = tr.open[w], tr.open[r] // the writer is made first
	tr.describe()
	tr.to = newScratch(t)
	check(t, unix.Mkfifo(filepath.Join(tr.to.root, "data", "fifo"), 0o600))
	tr.make()
	write(t, tr.fds[0], "hello")
	wantRead(t, tr.fds[1], "hello")
	wantFlags(t, tr.fds[0], unix.O_WRONLY|unix.O_NONBLOCK)
}

func TestStandardStreams(t *testing.T) {
	tr := newTransfer(t)
	streams, err := openStreams(tr.from.Container)
	check(t, err)
	defer streams.close()
	same, err := unix.Dup(streams.fds[1])
	check(t, err)
	a := tr.add(same)
	reopened, err := unix.Open(fmt.Sprintf("/proc/%d/fd/1", tr.from.PID), unix.O_WRONLY|unix.O_NONBLOCK, 0)
	check(t, err)
	b := tr.add(reopened)
	in, err := unix.Dup(streams.fds[0]) // /dev/null
	check(t, err)
	c := tr.add(in)
	tr.move()
	for i, want := range map[int]int{a: 1, b: 1, c: 0} {
		if tr.specs[i].Kind != KindStandard || tr.specs[i].Standard != want {
			t.Errorf("open file %d is %s %d", i, tr.specs[i].Kind, tr.specs[i].Standard)
		}
	}
	wantFlags(t, tr.fds[b], unix.O_WRONLY|unix.O_NONBLOCK)
	wantFlags(t, tr.fds[a], unix.O_WRONLY)
	write(t, tr.fds[a], "one")
	write(t, tr.fds[b], "two")
	wantRead(t, int(tr.to.out.Fd()), "onetwo")
}

func TestNamespace(t *testing.T) {
	tr := newTransfer(t)
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", tr.from.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	tr.add(fd)
	tr.move()
	var got, want unix.Stat_t
	check(t, unix.Fstat(tr.fds[0], &got))
	check(t, unix.Stat(fmt.Sprintf("/proc/%d/ns/net", tr.to.PID), &want))
	if got.Ino != want.Ino {
		t.Error("not the namespace of the second container")
	}
}

func TestRefusedFiles(t *testing.T) {
	tr := newTransfer(t)
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	tr.add(fd)
	tr.add(tr.from.openPath("/dev/tun", unix.O_PATH))
	check(t, os.Mkdir(filepath.Join(tr.from.root, "data", "gone"), 0o755))
	tr.addUse(tr.from.openPath("/data/gone", unix.O_PATH|unix.O_DIRECTORY), UseDirectory)
	check(t, os.Remove(filepath.Join(tr.from.root, "data", "gone")))
	check(t, os.WriteFile(filepath.Join(tr.from.root, "data", "moved"), nil, 0o644))
	check(t, os.Link(filepath.Join(tr.from.root, "data", "moved"), filepath.Join(tr.from.root, "data", "other")))
	tr.add(tr.from.openPath("/data/moved", unix.O_RDWR))
	check(t, os.Remove(filepath.Join(tr.from.root, "data", "moved")))
	check(t, os.WriteFile(filepath.Join(tr.from.root, "data", "\xff"), nil, 0o644))
	tr.add(tr.from.openPath("/data/\xff", unix.O_RDWR))
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	check(t, err)
	tr.add(pidfd)
	tr.refused("the namespace net:[", "the device /dev/tun", "/data/gone, which no path leads to any more (the directory of a process)",
		"/data/moved, which the container's paths do not lead to", "a pidfd", `the file "/data/\xff", whose name is not UTF-8`,
		fmt.Sprintf("(descriptor %d of process %d)", pidfd, os.Getpid()))
}

func TestRefusedProcessFile(t *testing.T) {
	tr := newTransfer(t)
	cmd := startInside(t, tr.from)
	fd := tr.from.openPath("/proc/"+cmd+"/status", unix.O_RDONLY)
	tr.add(fd)
	tr.refused("/proc/" + cmd + "/status, a file of process " + cmd)
}

func TestDescriptorLocks(t *testing.T) {
	tr := newTransfer(t)
	check(t, os.WriteFile(filepath.Join(tr.from.root, "data", "lock"), []byte("12345"), 0o644))
	whole := tr.from.openPath("/data/lock", unix.O_RDWR)
	check(t, unix.Flock(whole, unix.LOCK_EX))
	part := tr.from.openPath("/data/lock", unix.O_RDWR)
	check(t, unix.FcntlFlock(uintptr(part), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 2, Len: 2}))
	tr.add(whole)
	tr.add(part)
	tr.describe()
	tr.to = newScratch(t)
	check(t, os.WriteFile(filepath.Join(tr.to.root, "data", "lock"), []byte("12345"), 0o644))
	tr.make()
	rival := tr.to.openPath("/data/lock", unix.O_RDWR)
	defer unix.Close(rival)
	wantErrno(t, unix.Flock(rival, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	for start, want := range map[int64]error{0: nil, 2: unix.EAGAIN, 3: unix.EAGAIN, 4: nil} {
		err := unix.FcntlFlock(uintptr(rival), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: start, Len: 1})
		wantErrno(t, err, want)
	}
	// A second container on the same file has to do without.
	if fds, err := Make(tr.to.Container, tr.dir, tr.specs, tr.options); !errors.Is(err, syscall.EWOULDBLOCK) || !strings.Contains(err.Error(), "/data/lock") {
		t.Errorf("took a lock that is held: %v, %v", fds, err)
	}
}

func TestRefusedLocks(t *testing.T) {
	tr := newTransfer(t)
	check(t, os.WriteFile(filepath.Join(tr.from.root, "data", "lock"), []byte("12345"), 0o644))
	record := tr.from.openPath("/data/lock", unix.O_RDWR)
	check(t, unix.FcntlFlock(uintptr(record), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 1, Len: 1}))
	check(t, os.WriteFile(filepath.Join(tr.from.root, "data", "lease"), nil, 0o644))
	lease := tr.from.openPath("/data/lease", unix.O_RDONLY)
	_, err := unix.FcntlInt(uintptr(lease), unix.F_SETLEASE, unix.F_RDLCK)
	check(t, err)
	tr.add(record)
	tr.add(lease)
	whole := tr.from.openPath("/data/lock", unix.O_RDWR)
	again, err := unix.Dup(whole)
	check(t, err)
	tr.add(whole)
	tr.add(again)
	tr.refused("a record lock on /data/lock (descriptor "+itoa(record), "a lease on /data/lease")
}

func TestSignalOfFile(t *testing.T) {
	tr := newTransfer(t)
	fd := tr.from.openPath("/dev/null", unix.O_RDWR)
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETSIG, int(unix.SIGUSR2))
	check(t, err)
	tr.add(fd)
	tr.move()
	if got, err := unix.FcntlInt(uintptr(tr.fds[0]), unix.F_GETSIG, 0); err != nil || got != int(unix.SIGUSR2) {
		t.Errorf("signal %d, %v", got, err)
	}
}

// TestSameByKcmp makes so many duplicates that their order matters.
func TestSameByKcmp(t *testing.T) {
	tr := newTransfer(t)
	var files [10]int
	for i := range files {
		files[i] = tr.from.openPath("/dev/null", unix.O_RDONLY)
	}
	for n := range 100 {
		fd, err := unix.Dup(files[n*7%10])
		check(t, err)
		tr.add(fd)
	}
	for _, fd := range files {
		unix.Close(fd)
	}
	tr.describe()
	for n := range 100 {
		want := n % 10
		if n < 10 {
			want = -1
		}
		if got := tr.specs[n].Same; got != want {
			t.Errorf("open file %d is the same as %d, want %d", n, got, want)
		}
	}
}

// TestOverlay has files of an overlay, as root file systems are.
func TestOverlay(t *testing.T) {
	tr := newTransfer(t)
	program := tr.from.openPath("/over/program", unix.O_RDONLY)
	mapped, err := unix.Mmap(program, 0, 7, unix.PROT_READ, unix.MAP_PRIVATE)
	check(t, err)
	tr.add(program)
	tr.addUse(openMapping(t, "/over/program", unix.O_RDONLY), UseMapped)
	check(t, unix.Munmap(mapped))
	deleted := tr.from.openPath("/over/temp", unix.O_RDWR|unix.O_CREAT)
	write(t, deleted, "temp")
	tr.from.do(func() error { return unix.Unlink("/over/temp") })
	tr.add(deleted)
	tr.describe()
	for i, want := range []Kind{KindFile, KindFile, KindContent} {
		if s := &tr.specs[i]; s.Kind != want || want == KindFile && (s.File.Path != "/over/program" || !s.File.Fixed) {
			t.Errorf("open file %d is described as %s %+v", i, s.Kind, s.File)
		}
	}
	tr.to = newScratch(t)
	for i := range 2 {
		check(t, os.Chtimes(filepath.Join(tr.to.root, "lower", "program"), time.Time{}, tr.specs[i].File.ModTime))
	}
	tr.make()
	wantRead(t, tr.fds[1], "program")
}
