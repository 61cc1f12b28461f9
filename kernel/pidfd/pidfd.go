// Package pidfd takes descriptors out of other processes and refers to
// processes without the race of reused pids.
//
// Its functions hold no state and may be called concurrently.
package pidfd

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Open returns a pidfd of the process pid. Errors: ESRCH. The caller closes it.
func Open(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid)), nil
}

// GetFD duplicates descriptor fd of the process into this one, close-on-exec.
// Errors: EBADF when it is not open there, EPERM without the right to trace.
// The caller owns the result.
func GetFD(process *os.File, fd int) (int, error) {
	got, err := unix.PidfdGetfd(int(process.Fd()), fd, 0)
	if err != nil {
		return -1, fmt.Errorf("take descriptor %d of %s: %w", fd, process.Name(), err)
	}
	return got, nil
}

// Kill sends SIGKILL. A process that is already gone is not an error.
func Kill(process *os.File) error {
	err := unix.PidfdSendSignal(int(process.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill %s: %w", process.Name(), err)
	}
	return nil
}

// Gone waits until the process has ended, zombie or not, and reports whether
// it did within the time.
func Gone(process *os.File, within time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(process.Fd()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(within); ; {
		left := time.Until(deadline)
		if left < 0 {
			left = 0
		}
		n, err := unix.Poll(fds, int(left.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		return n > 0
	}
}

// Namespaces of Join flags, the CLONE_NEW* bits.
const (
	NSMount  = unix.CLONE_NEWNS
	NSUTS    = unix.CLONE_NEWUTS
	NSIPC    = unix.CLONE_NEWIPC
	NSPID    = unix.CLONE_NEWPID
	NSNet    = unix.CLONE_NEWNET
	NSCgroup = unix.CLONE_NEWCGROUP
	NSUser   = unix.CLONE_NEWUSER
)
