package nfqueue

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memoryInfo is what SO_MEMINFO gives (linux/sock_diag.h).
type memoryInfo [9]uint32

const memoryDrops = 8 // SK_MEMINFO_DROPS

// Lost returns how many packets the kernel has dropped because the buffer of
// the socket was full.
func (q *Queue) Lost() (uint32, error) {
	raw, err := q.file.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read losses of queue %d: %w", q.number, err)
	}
	var info memoryInfo
	size := uint32(unsafe.Sizeof(info))
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return 0, fmt.Errorf("read losses of queue %d: %w", q.number, err)
	}
	return info[memoryDrops], nil
}
