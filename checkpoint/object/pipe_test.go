package object

import (
	"testing"

	"golang.org/x/sys/unix"

	"torpor/kernel/pipe"
)

func newPipe(t *testing.T, flags int) (read, write int) {
	t.Helper()
	var fds [2]int
	check(t, unix.Pipe2(fds[:], flags|unix.O_CLOEXEC))
	return fds[0], fds[1]
}

func TestPipe(t *testing.T) {
	tr := newTransfer(t)
	r, w := newPipe(t, 0)
	check(t, pipe.SetCapacity(w, 1<<18))
	write(t, w, "unread")
	check(t, unix.SetNonblock(w, true))
	a, b := tr.add(r), tr.add(w)
	twin, err := unix.Dup(w)
	check(t, err)
	c := tr.add(twin)
	second, err := unix.Open("/proc/self/fd/"+itoa(r), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	check(t, err)
	d := tr.add(second)
	tr.move()
	wantFlags(t, tr.fds[a], unix.O_RDONLY)
	wantFlags(t, tr.fds[b], unix.O_WRONLY|unix.O_NONBLOCK)
	wantRead(t, tr.fds[a], "unread")
	_, err = unix.Read(tr.fds[d], make([]byte, 1))
	wantErrno(t, err, unix.EAGAIN)
	write(t, tr.fds[c], "more")
	wantRead(t, tr.fds[d], "more")
	if n, err := pipe.Capacity(tr.fds[a]); err != nil || n != 1<<18 {
		t.Errorf("capacity %d, %v", n, err)
	}
	unix.Close(tr.fds[b])
	unix.Close(tr.fds[c])
	wantRead(t, tr.fds[a], "") // no other writer is left
	tr.fds = []int{tr.fds[a], tr.fds[d]}
}

func TestPipePackets(t *testing.T) {
	tr := newTransfer(t)
	r, w := newPipe(t, unix.O_DIRECT|unix.O_NONBLOCK)
	write(t, w, "one")
	write(t, w, "three")
	tr.add(w)
	tr.add(r)
	tr.describe()
	tr.to = newScratch(t)
	tr.make()
	for _, want := range []string{"one", "three"} {
		wantRead(t, tr.fds[1], want)
	}
	wantFlags(t, tr.fds[0], unix.O_WRONLY|unix.O_DIRECT|unix.O_NONBLOCK)
	write(t, tr.fds[0], "five")
	write(t, tr.fds[0], "six")
	wantRead(t, tr.fds[1], "five")
}

// TestPipePeek asserts that describing a pipe takes nothing out of it.
func TestPipePeek(t *testing.T) {
	tr := newTransfer(t)
	r, w := newPipe(t, 0)
	write(t, w, "kept")
	tr.add(r)
	tr.add(w)
	for range 2 {
		specs, err := Describe(tr.from.Container, tr.dir, tr.open)
		check(t, err)
		if got := specs[0].Pipe.Unread; len(got) != 1 || string(got[0]) != "kept" {
			t.Errorf("unread: %q", got)
		}
	}
	wantRead(t, r, "kept")
}

func TestPipeEnds(t *testing.T) {
	tr := newTransfer(t)
	r, w := newPipe(t, 0)
	write(t, w, "last")
	unix.Close(w)
	tr.add(r)
	r, w = newPipe(t, 0)
	unix.Close(r)
	tr.add(w)
	tr.move()
	wantRead(t, tr.fds[0], "last")
	wantRead(t, tr.fds[0], "")
	_, err := unix.Write(tr.fds[1], []byte("x"))
	wantErrno(t, err, unix.EPIPE)
}

func TestRefusedPipe(t *testing.T) {
	tr := newTransfer(t)
	r, w := newPipe(t, 0)
	defer unix.Close(w)
	tr.add(r)
	tr.refused("a pipe whose other end is outside (descriptor " + itoa(r))
}
