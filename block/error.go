package block

import (
	"errors"
	"fmt"
	"syscall"
)

// Kinds of error. Each carries the errno that an export answers with.
var (
	ErrRange       = fmt.Errorf("beyond the end of the device: %w", syscall.EINVAL)
	ErrAlignment   = fmt.Errorf("not a multiple of the device's block: %w", syscall.EINVAL)
	ErrReadOnly    = fmt.Errorf("device is read-only: %w", syscall.EROFS)
	ErrNoSpace     = fmt.Errorf("no space left on the device: %w", syscall.ENOSPC)
	ErrCorrupt     = fmt.Errorf("content does not match its checksum: %w", syscall.EIO)
	ErrUnsupported = fmt.Errorf("not supported by the device: %w", syscall.EOPNOTSUPP)
	ErrClosed      = fmt.Errorf("device is closed: %w", syscall.ESHUTDOWN)
)

// Errno returns the errno that err carries, or EIO.
func Errno(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
