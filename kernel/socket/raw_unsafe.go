package socket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// getRaw reads an option of any kind into b and returns its length. It does not
// tell Go's scheduler, which takes as long as the call; that waits at most for
// another call on the same socket.
func getRaw(fd, level, name int, b []byte) (int, error) {
	n := uint32(len(b))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// setRaw sets an option of any kind.
func setRaw(fd, level, name int, b []byte) error {
	return unix.SetsockoptString(fd, level, name, string(b))
}

// getInt reads an option that is an int.
func getInt(fd, level, name int) (int, error) {
	var value int32
	_, err := getRaw(fd, level, name, unsafe.Slice((*byte)(unsafe.Pointer(&value)), unsafe.Sizeof(value)))
	return int(value), err
}

// disconnect is connect(2) to AF_UNSPEC.
func disconnect(fd int) error {
	var nowhere unix.RawSockaddr
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nowhere)), unix.SizeofSockaddrInet4)
	if errno != 0 {
		return errno
	}
	return nil
}
