package eventfile

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// NewCounter makes an eventfd with a count; a semaphore gives 1 a read. It has
// O_NONBLOCK.
func NewCounter(count uint64, semaphore bool) (int, error) {
	flags := unix.EFD_CLOEXEC | unix.EFD_NONBLOCK
	if semaphore {
		flags |= unix.EFD_SEMAPHORE
	}
	fd, err := unix.Eventfd(0, flags)
	if err != nil {
		return -1, fmt.Errorf("make counter: %w", err)
	}
	if count == 0 {
		return fd, nil
	}
	if _, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, count)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set counter to %d: %w", count, err)
	}
	return fd, nil
}

// NewSignals makes a signalfd for a mask of signals, signal 1 being bit 0.
func NewSignals(mask uint64) (int, error) {
	var set unix.Sigset_t
	set.Val[0] = mask
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make signal descriptor: %w", err)
	}
	return fd, nil
}

// NewSet makes an empty epoll set.
func NewSet() (int, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make event set: %w", err)
	}
	return fd, nil
}
