package hostdev

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// discardAll discards a block device (BLKDISCARD), as blkdiscard does, which
// would write zeros instead where that fails.
func discardAll(f *os.File, lenBytes uint64) error {
	r := [2]uint64{0, lenBytes}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return errno
	}
	return nil
}
