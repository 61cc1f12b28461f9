package object

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/kernel/eventfile"
)

func itoa(n int) string { return strconv.Itoa(n) }

func wantCount(t *testing.T, fd int, want uint64) {
	t.Helper()
	b := make([]byte, 8)
	if _, err := unix.Read(fd, b); err != nil || binary.NativeEndian.Uint64(b) != want {
		t.Errorf("count %d (%v), want %d", binary.NativeEndian.Uint64(b), err, want)
	}
}

func TestCounter(t *testing.T) {
	tr := newTransfer(t)
	plain, err := unix.Eventfd(7, unix.EFD_CLOEXEC)
	check(t, err)
	semaphore, err := unix.Eventfd(2, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE|unix.EFD_NONBLOCK)
	check(t, err)
	full, err := eventfile.NewCounter(1<<63, false)
	check(t, err)
	a, b, c := tr.add(plain), tr.add(semaphore), tr.add(full)
	tr.move()
	wantFlags(t, tr.fds[a], unix.O_RDWR)
	wantFlags(t, tr.fds[b], unix.O_RDWR|unix.O_NONBLOCK)
	wantCount(t, tr.fds[a], 7)
	wantCount(t, tr.fds[b], 1)
	wantCount(t, tr.fds[b], 1)
	_, err = unix.Read(tr.fds[b], make([]byte, 8))
	wantErrno(t, err, unix.EAGAIN)
	wantCount(t, tr.fds[c], 1<<63)
}

func TestTimer(t *testing.T) {
	tr := newTransfer(t)
	idle, err := eventfile.NewTimer(eventfile.Timer{Clock: unix.CLOCK_MONOTONIC})
	check(t, err)
	periodic, err := eventfile.NewTimer(eventfile.Timer{Clock: unix.CLOCK_BOOTTIME, Value: time.Nanosecond, Interval: time.Hour})
	check(t, err)
	running, err := eventfile.NewTimer(eventfile.Timer{Clock: unix.CLOCK_MONOTONIC, Value: time.Hour})
	check(t, err)
	at := time.Now().Add(2 * time.Hour)
	daily, err := eventfile.NewTimer(eventfile.Timer{Clock: unix.CLOCK_REALTIME, At: at, Flags: unix.TFD_TIMER_ABSTIME | unix.TFD_TIMER_CANCEL_ON_SET})
	check(t, err)
	expired, err := eventfile.NewTimer(eventfile.Timer{Clock: unix.CLOCK_MONOTONIC, Ticks: 3})
	check(t, err)
	time.Sleep(time.Millisecond)
	for _, fd := range []int{idle, periodic, running, daily, expired} {
		tr.add(fd)
	}
	tr.move()
	wantLeft := func(i int, least, most time.Duration) {
		t.Helper()
		if left, _, err := eventfile.TimerLeft(tr.fds[i]); err != nil || left < least || left > most {
			t.Errorf("timer %d: %s left (%v), want %s to %s", i, left, err, least, most)
		}
	}
	wantLeft(0, 0, 0)
	wantCount(t, tr.fds[1], 1) // had expired
	wantLeft(1, 50*time.Minute, time.Hour)
	wantLeft(2, 50*time.Minute, time.Hour)
	wantLeft(3, 110*time.Minute, 2*time.Hour)
	wantCount(t, tr.fds[4], 3)
	wantLeft(4, 0, 0)
	if got := tr.specs[3].Timer; !got.At.Round(time.Second).Equal(at.Round(time.Second)) || got.Flags&unix.TFD_TIMER_CANCEL_ON_SET == 0 {
		t.Errorf("a timer at %s is described as %+v", at, got)
	}
}

func TestSignals(t *testing.T) {
	tr := newTransfer(t)
	fd, err := eventfile.NewSignals(1<<(unix.SIGUSR1-1) | 1<<63)
	check(t, err)
	tr.add(fd)
	tr.describe()
	if tr.specs[0].Kind != KindSignals || tr.specs[0].Signals != 1<<(unix.SIGUSR1-1)|1<<63 {
		t.Errorf("described as %+v", tr.specs[0])
	}
	tr.to = newScratch(t)
	tr.make()
	tr.add(tr.fds[0])
	tr.fds = nil
	again := tr.specs[0].Signals
	tr.describe()
	if tr.specs[0].Signals != again {
		t.Errorf("the new one's mask is %x", tr.specs[0].Signals)
	}
}

func TestEvents(t *testing.T) {
	tr := newTransfer(t)
	set, err := eventfile.NewSet()
	check(t, err)
	counter, err := unix.Eventfd(1, unix.EFD_CLOEXEC)
	check(t, err)
	check(t, unix.EpollCtl(set, unix.EPOLL_CTL_ADD, counter, &unix.EpollEvent{Events: unix.EPOLLIN}))
	a, b := tr.add(set), tr.add(counter)
	tr.move()
	var events [2]unix.EpollEvent
	if n, err := unix.EpollWait(tr.fds[a], events[:], 0); n != 0 || err != nil {
		t.Errorf("the new set is not empty: %d, %v", n, err)
	}
	check(t, unix.EpollCtl(tr.fds[a], unix.EPOLL_CTL_ADD, tr.fds[b], &unix.EpollEvent{Events: unix.EPOLLIN}))
	if n, err := unix.EpollWait(tr.fds[a], events[:], 0); n != 1 || err != nil {
		t.Errorf("events: %d, %v", n, err)
	}
}

func TestWatches(t *testing.T) {
	tr := newTransfer(t)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	check(t, err)
	a := tr.add(fd)
	dir, file := filepath.Join(tr.from.root, "data", "deep", "er"), filepath.Join(tr.from.root, "data", "conf")
	check(t, os.MkdirAll(dir, 0o755))
	check(t, os.WriteFile(file, nil, 0o644))
	var numbers [4]int
	tr.from.do(func() error {
		for i, path := range []string{"/data/deep/er", "/data", "/data/conf", "/dev/shm"} {
			if numbers[i], err = unix.InotifyAddWatch(fd, path, unix.IN_CREATE|unix.IN_MODIFY|unix.IN_EXCL_UNLINK); err != nil {
				return err
			}
		}
		_, err := unix.InotifyRmWatch(fd, uint32(numbers[1]))
		return err
	})
	tr.refused("inotify with unread events") // that the watch has ended
	_, err = unix.Read(fd, make([]byte, 4096))
	check(t, err)
	tr.describe()
	tr.to = newScratch(t)
	check(t, os.MkdirAll(filepath.Join(tr.to.root, "data", "deep", "er"), 0o755))
	check(t, os.WriteFile(filepath.Join(tr.to.root, "data", "conf"), nil, 0o644))
	tr.make()
	_, err = unix.Read(tr.fds[a], make([]byte, 4096))
	wantErrno(t, err, unix.EAGAIN)
	for path, want := range map[string]int{"/data/deep/er/new": numbers[0], "/data/conf": numbers[2], "/dev/shm/x": numbers[3]} {
		w := tr.to.openPath(path, unix.O_WRONLY|unix.O_CREAT)
		write(t, w, "x")
		unix.Close(w)
		wantWatch(t, tr.fds[a], want)
	}
}

// wantWatch reads all events and compares the watch they are of.
func wantWatch(t *testing.T, fd, want int) {
	t.Helper()
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	check(t, err)
	for b = b[:n]; len(b) >= unix.SizeofInotifyEvent; {
		number, nameBytes := int(int32(binary.NativeEndian.Uint32(b))), binary.NativeEndian.Uint32(b[12:])
		if number != want {
			t.Errorf("an event of watch %d, want %d", number, want)
		}
		b = b[unix.SizeofInotifyEvent+int(nameBytes):]
	}
}

// TestWatchesOverlay watches files of an overlay, which gives no handles that
// can be opened.
func TestWatchesOverlay(t *testing.T) {
	tr := newTransfer(t)
	populate := func(c *scratch) {
		c.do(func() error {
			if err := os.MkdirAll("/over/deep/er", 0o755); err != nil {
				return err
			}
			return os.WriteFile("/over/deep/er/conf", nil, 0o644)
		})
	}
	populate(tr.from)
	var fd int
	tr.from.do(func() (err error) {
		fd, err = eventfile.NewWatches([]eventfile.Watch{{Number: 2, Path: "/over/deep", Mask: unix.IN_CREATE}, {Number: 3, Path: "/over/deep/er/conf", Mask: unix.IN_MODIFY}})
		return err
	})
	tr.add(fd)
	tr.describe()
	tr.to = newScratch(t)
	populate(tr.to)
	tr.make()
	for path, want := range map[string]int{"/over/deep/new": 2, "/over/deep/er/conf": 3} {
		w := tr.to.openPath(path, unix.O_WRONLY|unix.O_CREAT)
		write(t, w, "x")
		unix.Close(w)
		wantWatch(t, tr.fds[0], want)
	}
}
