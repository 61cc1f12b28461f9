// Package memory makes memory files and shared mappings of this process.
//
// Its functions hold no state and may be called concurrently.
package memory

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewFile returns a file of the given length that exists in memory only and
// may be mapped executable. The caller closes it.
func NewFile(name string, lenBytes int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 there is no MFD_EXEC and all are executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("create memory file %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(lenBytes); err != nil {
		f.Close()
		return nil, fmt.Errorf("size memory file %s: %w", name, err)
	}
	return f, nil
}

// PunchHole gives the blocks of [offset, offset+lenBytes) of a file back; they
// read as zeros from then on and the file keeps its length.
func PunchHole(f *os.File, offset, lenBytes int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, lenBytes)
	if err != nil {
		return fmt.Errorf("punch hole in %s at %d: %w", f.Name(), offset, err)
	}
	return nil
}
