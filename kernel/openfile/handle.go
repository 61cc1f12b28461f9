package openfile

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// OpenHandle opens, with O_PATH, the file that a handle means on the file
// system of mount, an open file without O_PATH. The caller owns the descriptor.
func OpenHandle(mount int, kind int32, handle []byte) (int, error) {
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(kind, handle), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file by handle: %w", err)
	}
	return fd, nil
}
