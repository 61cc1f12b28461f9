package tree

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Replace gives the file or directory from the name to, at once: whatever
// happens, to is what it was or the new one. What had the name before has the
// name from afterwards. Both are in one file system. One that can not exchange
// names (NFS, older ZFS) has neither under the name for a moment.
func Replace(from, to string) error {
	_, err := os.Lstat(to)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.Rename(from, to)
	case err != nil:
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL || err == unix.ENOSYS {
		return replaceInSteps(from, to)
	}
	if err != nil {
		return fmt.Errorf("exchange %s and %s: %w", from, to, err)
	}
	return nil
}

// replaceInSteps is Replace by three renames.
func replaceInSteps(from, to string) error {
	old := to + ".old"
	if err := os.Rename(to, old); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, os.Rename(old, to))
	}
	return os.Rename(old, from)
}
