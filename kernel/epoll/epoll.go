// Package epoll waits for the first event on descriptors that belong to
// somebody else.
//
// A Set is added to and waited on by one goroutine; Close may be called from
// another and ends the wait.
package epoll

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Set is an epoll instance. A descriptor stays in it after the number is
// closed here, as long as any process holds the same open file.
type Set struct{ file *os.File }

// Readable is what wakes: data, a connection to accept, the peer's end.
const Readable = unix.EPOLLIN | unix.EPOLLRDHUP

// NewSet makes an empty set. The caller closes it.
func NewSet() (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	// Not blocking, so that the runtime's poller waits for it and no thread is
	// spent on a sleeping service.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &Set{os.NewFile(uintptr(fd), "epoll")}, nil
}

// Add watches fd; key is returned by Wait. Errors: EPERM for files that have
// no readiness.
func (s *Set) Add(fd int, key int32) error {
	var failed error
	err := s.control(func(epfd uintptr) {
		failed = unix.EpollCtl(int(epfd), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: Readable, Fd: key})
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, failed)
	}
	return nil
}

func (s *Set) control(f func(fd uintptr)) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(f)
}

// Wait returns the key of a descriptor with an event. Errors: os.ErrClosed
// after Close.
func (s *Set) Wait() (int32, error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	events := make([]unix.EpollEvent, 1)
	n, failed := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool {
		n, failed = unix.EpollWait(int(fd), events, 0)
		return n > 0 || failed != nil && failed != unix.EINTR
	})
	if err != nil { // there are no deadlines: only Close ends the wait
		return 0, fmt.Errorf("wait for event: %w", os.ErrClosed)
	}
	if failed != nil {
		return 0, fmt.Errorf("wait for event: %w", failed)
	}
	return events[0].Fd, nil
}

// Close ends the set and a Wait on it.
func (s *Set) Close() error { return s.file.Close() }
