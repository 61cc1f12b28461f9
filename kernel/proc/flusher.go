package proc

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// BecomeFlusher says that this process writes for file systems: what its
// threads, and those they make, allocate does not wait for such writes, which
// would be waiting for itself (PR_SET_IO_FLUSHER). Children and later programs
// inherit it. Needs CAP_SYS_RESOURCE. Least kernel: 5.6.
func BecomeFlusher() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("become I/O flusher: %w", errno)
	}
	return nil
}
