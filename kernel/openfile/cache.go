package openfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SyncData writes a file's content, and what of its inode is needed to read
// it, to the disk. The file may be closed meanwhile.
func SyncData(f *os.File) error {
	return control(f, "sync data of", unix.Fdatasync)
}

// DropCache gives the page cache of a file back. Pages that are not on the disk
// yet stay: SyncData comes first.
func DropCache(f *os.File) error {
	return control(f, "drop cache of", func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}

// control calls do until it is not interrupted.
func control(f *os.File, verb string, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, f.Name(), err)
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		for failure = unix.EINTR; failure == unix.EINTR; {
			failure = do(int(fd))
		}
	})
	if err = errors.Join(err, failure); err != nil {
		return fmt.Errorf("%s %s: %w", verb, f.Name(), err)
	}
	return nil
}

// ReadAt fills b from an offset of an open file, or what there is before the
// file's end, and returns the number of bytes. Unlike os.File's it leaves b on
// the caller's stack.
func ReadAt(fd int, b []byte, offset int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pread(fd, b[done:], offset+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("read at %d: %w", offset, err)
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}
