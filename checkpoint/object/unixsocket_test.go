package object

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/kernel/socket"
)

func (c *scratch) pair(kind int) (a, b int) {
	c.t.Helper()
	var pair [2]int
	c.do(func() (err error) {
		pair, err = unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		return err
	})
	return pair[0], pair[1]
}

func TestUnixPairs(t *testing.T) {
	tr := newTransfer(t)
	a, b := tr.from.pair(unix.SOCK_STREAM)
	write(t, a, "to b")
	write(t, b, "to ")
	write(t, b, "a")
	check(t, unix.SetNonblock(a, true))
	check(t, unix.SetsockoptInt(a, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	tr.add(a)
	tr.add(b)
	c, d := tr.from.pair(unix.SOCK_SEQPACKET)
	write(t, c, "one")
	write(t, c, "three")
	tr.add(c)
	tr.add(d)
	e, f := tr.from.pair(unix.SOCK_DGRAM)
	write(t, e, "one")
	_, err := unix.Write(e, nil)
	check(t, err)
	write(t, e, "five")
	tr.add(e)
	tr.add(f)
	g, h := tr.from.pair(unix.SOCK_STREAM)
	write(t, g, "end")
	check(t, unix.Shutdown(g, unix.SHUT_WR))
	tr.add(g)
	tr.add(h)
	tr.describe()
	tr.to = newScratch(t)
	tr.make()
	wantRead(t, tr.fds[1], "to b")
	wantRead(t, tr.fds[0], "to a")
	wantFlags(t, tr.fds[0], unix.O_RDWR|unix.O_NONBLOCK)
	wantFlags(t, tr.fds[1], unix.O_RDWR)
	if on, err := unix.GetsockoptInt(tr.fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED); err != nil || on != 1 {
		t.Errorf("option %d, %v", on, err)
	}
	for _, want := range []string{"one", "three"} {
		wantRead(t, tr.fds[3], want)
	}
	for _, want := range []string{"one", "", "five"} {
		wantRead(t, tr.fds[5], want)
	}
	wantRead(t, tr.fds[7], "end")
	wantRead(t, tr.fds[7], "")
	write(t, tr.fds[7], "still")
	wantRead(t, tr.fds[6], "still")
	unix.Close(tr.fds[2])
	wantRead(t, tr.fds[3], "")
	tr.fds[2] = tr.fds[0]
	tr.fds = tr.fds[1:]
}

// TestUnixPeek asserts that describing a socket takes nothing out of it.
func TestUnixPeek(t *testing.T) {
	tr := newTransfer(t)
	a, b := tr.from.pair(unix.SOCK_SEQPACKET)
	write(t, a, "one")
	write(t, a, "two")
	tr.add(a)
	tr.add(b)
	for range 2 {
		specs, err := Describe(tr.from.Container, tr.dir, tr.open)
		check(t, err)
		if got := specs[1].Socket.Unread; len(got) != 2 || string(got[1]) != "two" {
			t.Errorf("unread: %q", got)
		}
	}
	wantRead(t, b, "one")
	wantRead(t, b, "two")
}

func (c *scratch) bindUnix(kind int, name string) (fd int) {
	c.t.Helper()
	fd = c.socket(unix.AF_UNIX, kind, 0)
	c.do(func() error { return unix.Bind(fd, &unix.SockaddrUnix{Name: name}) })
	return fd
}

func (c *scratch) connectUnix(fd int, name string) {
	c.t.Helper()
	c.do(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: name}) })
}

func TestUnixListening(t *testing.T) {
	tr := newTransfer(t)
	listener := tr.from.bindUnix(unix.SOCK_STREAM, "/data/socket")
	check(t, unix.Listen(listener, 17))
	check(t, os.Chmod(filepath.Join(tr.from.root, "data", "socket"), 0o620))
	check(t, os.Lchown(filepath.Join(tr.from.root, "data", "socket"), 11, 12))
	client := tr.from.socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	tr.from.connectUnix(client, "/data/socket")
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	check(t, err)
	write(t, client, "hello")
	abstract := tr.from.bindUnix(unix.SOCK_SEQPACKET, "@abstract\x00name")
	check(t, unix.Listen(abstract, 3))
	for _, fd := range []int{server, listener, client, abstract} {
		tr.add(fd)
	}
	tr.describe()
	tr.to = newScratch(t)
	old := tr.to.bindUnix(unix.SOCK_STREAM, "/data/socket") // left by who was there before
	unix.Close(old)
	tr.make()
	wantRead(t, tr.fds[0], "hello")
	write(t, tr.fds[0], "answer")
	wantRead(t, tr.fds[2], "answer")
	info, err := os.Lstat(filepath.Join(tr.to.root, "data", "socket"))
	check(t, err)
	if info.Mode().Perm() != 0o620 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("mode %s", info.Mode())
	}
	var stat unix.Stat_t
	check(t, unix.Lstat(filepath.Join(tr.to.root, "data", "socket"), &stat))
	if stat.Uid != 11 || stat.Gid != 12 {
		t.Errorf("owner %d:%d", stat.Uid, stat.Gid)
	}
	for i, target := range map[int]string{1: "/data/socket", 3: "@abstract\x00name"} {
		kind, err := unix.GetsockoptInt(tr.fds[i], unix.SOL_SOCKET, unix.SO_TYPE)
		check(t, err)
		fd := tr.to.socket(unix.AF_UNIX, kind, 0)
		tr.to.connectUnix(fd, target)
		accepted, _, err := unix.Accept4(tr.fds[i], unix.SOCK_CLOEXEC)
		check(t, err)
		write(t, fd, "new")
		wantRead(t, accepted, "new")
		unix.Close(fd)
		unix.Close(accepted)
	}
	// What is not a socket is not replaced.
	check(t, os.Remove(filepath.Join(tr.to.root, "data", "socket")))
	check(t, os.WriteFile(filepath.Join(tr.to.root, "data", "socket"), []byte("data"), 0o644))
	tr.specs = tr.specs[1:2]
	if _, err := Make(tr.to.Container, tr.dir, tr.specs, tr.options); !errors.Is(err, host.ErrCorrupt) {
		t.Errorf("replaced a file: %v", err)
	}
}

func TestUnixDatagrams(t *testing.T) {
	tr := newTransfer(t)
	log := tr.from.bindUnix(unix.SOCK_DGRAM, "/dev/log")
	sender := tr.from.socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	tr.from.connectUnix(sender, "/dev/log")
	write(t, sender, "first")
	write(t, sender, "second")
	auto := tr.from.socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	name, err := socket.BindAny(auto)
	check(t, err)
	tr.add(sender)
	tr.add(log)
	tr.add(auto)
	tr.move()
	wantRead(t, tr.fds[1], "first")
	wantRead(t, tr.fds[1], "second")
	write(t, tr.fds[0], "third")
	wantRead(t, tr.fds[1], "third")
	other := tr.to.socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	defer unix.Close(other)
	tr.to.do(func() error { return socket.ConnectName(other, name) })
	write(t, other, "auto")
	wantRead(t, tr.fds[2], "auto")
}

// TestUnixRelative has a socket with a relative path, as a process that changed
// its directory would.
func TestUnixRelative(t *testing.T) {
	tr := newTransfer(t)
	fd := tr.from.socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	tr.from.do(func() error {
		if err := unix.Chdir("/data"); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrUnix{Name: "./here"})
	})
	check(t, unix.Listen(fd, 1))
	tr.add(fd)
	tr.open[0].PID, tr.open[0].Number = tr.from.PID, 0 // its directory is the root
	tr.refused("a Unix socket whose file /here is gone")
	check(t, os.Rename(filepath.Join(tr.from.root, "data", "here"), filepath.Join(tr.from.root, "here")))
	tr.describe()
	tr.specs[0].Socket.Directory = "/data"
	tr.to = newScratch(t)
	tr.make()
	client := tr.to.socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	defer unix.Close(client)
	tr.to.connectUnix(client, "/data/here")
}

func TestUnixOutside(t *testing.T) {
	tr := newTransfer(t)
	listener := tr.from.bindUnix(unix.SOCK_STREAM, "/data/other")
	defer unix.Close(listener)
	check(t, unix.Listen(listener, 1))
	client := tr.from.socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	tr.from.connectUnix(client, "/data/other")
	outside, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	check(t, err)
	defer unix.Close(outside)
	write(t, outside, "last words")
	log := tr.from.bindUnix(unix.SOCK_DGRAM, "/dev/log")
	defer unix.Close(log)
	sender := tr.from.socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	tr.from.connectUnix(sender, "/dev/log")
	lone, gone := tr.from.pair(unix.SOCK_STREAM)
	unix.Close(gone)
	tr.add(client)
	tr.add(sender)
	tr.add(lone)
	tr.move()
	for i, want := range []string{"Unix socket /data/other", "Unix socket /dev/log", ""} {
		if got := tr.specs[i].Socket.Reset; got != want {
			t.Errorf("the user is told of %q, want %q", got, want)
		}
	}
	wantRead(t, tr.fds[0], "last words")
	wantRead(t, tr.fds[0], "")
	_, err = unix.Write(tr.fds[1], []byte("x"))
	wantErrno(t, err, unix.ECONNREFUSED)
	wantRead(t, tr.fds[2], "")
}

func TestRefusedUnix(t *testing.T) {
	tr := newTransfer(t)
	a, b := tr.from.pair(unix.SOCK_STREAM)
	check(t, unix.Sendmsg(a, []byte("x"), unix.UnixRights(0), nil, 0))
	tr.add(a)
	tr.add(b)
	gone := tr.from.bindUnix(unix.SOCK_STREAM, "/data/gone")
	check(t, unix.Listen(gone, 1))
	check(t, os.Remove(filepath.Join(tr.from.root, "data", "gone")))
	tr.add(gone)
	foreign, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	check(t, unix.Bind(foreign, &unix.SockaddrUnix{Name: "@torpor-test-" + filepath.Base(tr.dir)}))
	tr.add(foreign)
	nameless, other := tr.from.pair(unix.SOCK_DGRAM)
	log := tr.from.bindUnix(unix.SOCK_DGRAM, "/dev/log")
	defer unix.Close(log)
	tr.from.connectUnix(other, "/dev/log") // nameless still sends to it
	tr.add(nameless)
	tr.add(other)
	tr.refused("a Unix socket whose peer has no name", "a Unix socket with descriptors under way in it", "a Unix socket whose file /data/gone is gone",
		"a socket of another network namespace")
}
