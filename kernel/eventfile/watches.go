package eventfile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Watch is one watch of an inotify descriptor.
type Watch struct {
	Number int // the watch descriptor, from 1
	Path   string
	Mask   uint32 // IN_*
}

// WatchMask are the bits that a mask may have: events, and what fdinfo repeats
// of the rest.
const WatchMask = unix.IN_ALL_EVENTS | unix.IN_EXCL_UNLINK | unix.IN_ONESHOT | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW |
	unix.IN_UNMOUNT | unix.IN_Q_OVERFLOW | unix.IN_IGNORED | unix.IN_ISDIR

// settable are those that inotify_add_watch takes.
const settable = unix.IN_ALL_EVENTS | unix.IN_EXCL_UNLINK | unix.IN_ONESHOT

// WatchesMost is the highest watch descriptor that NewWatches makes.
const WatchesMost = 1 << 16

// NewWatches makes an inotify descriptor with these watches, in ascending
// order of their numbers. The kernel gives numbers in ascending order, so
// numbers between are used up. It has O_NONBLOCK.
func NewWatches(watches []Watch) (fd int, err error) {
	if fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return -1, fmt.Errorf("make watches: %w", err)
	}
	next := 1
	for _, w := range watches {
		for err == nil && next <= w.Number {
			next, err = addWatch(fd, w, next)
		}
	}
	if err == nil {
		err = drain(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// addWatch makes the next watch and, if it has not the number yet, removes it.
func addWatch(fd int, w Watch, next int) (int, error) {
	got, err := unix.InotifyAddWatch(fd, w.Path, w.Mask&settable)
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", w.Path, err)
	}
	if got < next || got > w.Number {
		return 0, fmt.Errorf("watch %s: got number %d instead of %d: %w", w.Path, got, w.Number, unix.EEXIST)
	}
	if got < w.Number {
		if _, err := unix.InotifyRmWatch(fd, uint32(got)); err != nil {
			return 0, fmt.Errorf("skip watch %d: %w", got, err)
		}
	}
	return got + 1, nil
}

// drain takes out the events that removed watches leave.
func drain(fd int) error {
	buffer := make([]byte, 4096)
	for {
		_, err := unix.Read(fd, buffer)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("drain watches: %w", err)
		}
	}
}

// Unread returns how many bytes of events wait in an inotify descriptor.
func Unread(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0, fmt.Errorf("read events of watches: %w", err)
	}
	return n, nil
}
