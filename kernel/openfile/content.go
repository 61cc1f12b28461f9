package openfile

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// NewMemory makes an empty memory file that may be sealed and executed. The
// caller owns the descriptor.
func NewMemory(name string) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 there is no MFD_EXEC and all are executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("make memory file %s: %w", name, err)
	}
	return fd, nil
}

// Seals returns the seals of a memory file, ok false if it is none.
func Seals(fd int) (seals int, ok bool) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return seals, err == nil
}

// Seal adds seals to a memory file.
func Seal(fd, seals int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal memory file: %w", err)
	}
	return nil
}

// SealsKnown are the seals that Linux has: F_SEAL_SEAL up to F_SEAL_EXEC.
const SealsKnown = 0x3f

// SealFutureWrite is F_SEAL_FUTURE_WRITE: what is mapped to write stays so, but
// nobody can map it so again.
const SealFutureWrite = 0x10

// Extent is a run of bytes of a file that are not a hole.
type Extent struct{ Start, End int64 }

// Extents lists what of a file is not a hole. The offset of the open file is
// moved and moved back; nobody else may use it meanwhile.
func Extents(fd int) (extents []Extent, err error) {
	was, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	if err != nil {
		return nil, fmt.Errorf("list extents: %w", err)
	}
	defer func() {
		_, back := unix.Seek(fd, was, unix.SEEK_SET)
		err = errors.Join(err, back)
	}()
	for at := int64(0); ; {
		start, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO { // no data behind
			return extents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list extents: %w", err)
		}
		if at, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
			return nil, fmt.Errorf("list extents: %w", err)
		}
		extents = append(extents, Extent{start, at})
	}
}

// copyBytes is the size of one read of Copy.
const copyBytes = 256 << 10

// Copy copies runs of bytes from one file to the same place of another.
func Copy(to, from int, extents []Extent) error {
	var buffer []byte
	for _, e := range extents {
		if buffer == nil {
			buffer = make([]byte, min(copyBytes, e.End-e.Start))
		}
		for at := e.Start; at < e.End; {
			n, err := unix.Pread(from, buffer[:min(int64(len(buffer)), e.End-at)], at)
			if err == unix.EINTR {
				continue
			}
			if err == nil && n == 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return fmt.Errorf("copy content: %w", err)
			}
			if err := writeAt(to, buffer[:n], at); err != nil {
				return fmt.Errorf("copy content: %w", err)
			}
			at += int64(n)
		}
	}
	return nil
}

func writeAt(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}
