package disk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func discard(fd int, off, lenBytes int64) error {
	args := [2]uint64{uint64(off), uint64(lenBytes)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&args)))
	if errno != 0 {
		return errno
	}
	return nil
}
