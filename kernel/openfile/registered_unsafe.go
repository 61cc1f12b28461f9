package openfile

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kcmpEpollFile is KCMP_EPOLL_TFD of linux/kcmp.h.
const kcmpEpollFile = 7

// epollSlot is struct kcmp_epoll_slot.
type epollSlot struct{ set, number, nth uint32 }

// Registered reports whether a registration of an epoll set is of the open file
// fd: the nth, from 0, of those under the number, as fdinfo lists them. The
// number says only what the file was when it was registered; it may be closed
// or another file since. Errors: ENOENT when there is no such registration;
// ENOSYS and EOPNOTSUPP from a kernel that can not tell.
func Registered(set, number, nth, fd int) (bool, error) {
	slot := &epollSlot{uint32(set), uint32(number), uint32(nth)}
	pid := uintptr(os.Getpid())
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, pid, pid, kcmpEpollFile, uintptr(fd), uintptr(unsafe.Pointer(slot)), 0)
	if errno != 0 {
		return false, fmt.Errorf("compare open file with events of %d: %w", number, errno)
	}
	return r == 0, nil
}
