package socket

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// nameBytes is the size of sun_path.
const nameBytes = 108

// ValidName reports whether a name may be one of a Unix socket: a path, or
// bytes behind a zero (an abstract name).
func ValidName(name []byte) bool { return len(name) <= nameBytes }

// unixName writes a name as package unix takes it: an abstract one begins with
// "@" there.
func unixName(name []byte) *unix.SockaddrUnix {
	if len(name) > 0 && name[0] == 0 {
		return &unix.SockaddrUnix{Name: "@" + string(name[1:])}
	}
	return &unix.SockaddrUnix{Name: string(name)}
}

// BindName gives a Unix socket its name. A path is made as a file.
func BindName(fd int, name []byte) error {
	if err := unix.Bind(fd, unixName(name)); err != nil {
		return fmt.Errorf("bind socket to %q: %w", name, err)
	}
	return nil
}

// ConnectName connects a Unix socket. Errors: EAGAIN when the other end's queue
// is full.
func ConnectName(fd int, name []byte) error {
	if err := unix.Connect(fd, unixName(name)); err != nil {
		return fmt.Errorf("connect socket to %q: %w", name, err)
	}
	return nil
}

// BindAny gives a Unix socket an abstract name that the kernel chooses, and
// returns it.
func BindAny(fd int) ([]byte, error) {
	if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil {
		return nil, fmt.Errorf("bind socket: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("read name of socket: %w", err)
	}
	named, ok := sa.(*unix.SockaddrUnix)
	if !ok || len(named.Name) < 2 {
		return nil, fmt.Errorf("read name of socket: %w", unix.EINVAL)
	}
	return append([]byte{0}, named.Name[1:]...), nil
}
