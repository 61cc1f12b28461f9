package tree

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Kind is what an entry is.
type Kind int

// The kinds of entry. Whiteout is overlayfs's mark for a removed name, a
// character device 0/0.
const (
	Missing Kind = iota
	Directory
	File
	Symlink
	Whiteout
	Other
)

// Lstat says what name is, following no link in the last component.
func (t *Tree) Lstat(name string) (Kind, error) {
	fd, base, err := t.parent(name)
	if err == unix.ENOENT {
		return Missing, nil
	}
	if err != nil {
		return Missing, wrap("stat", name, err)
	}
	var st unix.Stat_t
	err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return Missing, nil
	}
	if err != nil {
		return Missing, wrap("stat", name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return Directory, nil
	case unix.S_IFREG:
		return File, nil
	case unix.S_IFLNK:
		return Symlink, nil
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return Whiteout, nil
		}
	}
	return Other, nil
}

// Create makes an empty regular file, owned by root with mode 0600, and opens
// it for writing. The caller closes it. An existing entry is unix.EEXIST.
func (t *Tree) Create(name string) (*os.File, error) {
	fd, base, err := t.parent(name)
	if err != nil {
		return nil, wrap("create", name, err)
	}
	f, err := unix.Openat(fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, wrap("create", name, err)
	}
	return os.NewFile(uintptr(f), base), nil
}

// Mkdir makes a directory with mode 0755, whatever the umask.
func (t *Tree) Mkdir(name string) error {
	fd, base, err := t.parent(name)
	if err != nil {
		return wrap("make directory", name, err)
	}
	if err := unix.Mkdirat(fd, base, 0o700); err != nil {
		return wrap("make directory", name, err)
	}
	return wrapNil("make directory", name, unix.Fchmodat(fd, base, 0o755, 0))
}

// Symlink makes name a symbolic link that says target, which is not looked at.
func (t *Tree) Symlink(target, name string) error {
	fd, base, err := t.parent(name)
	if err != nil {
		return wrap("make link", name, err)
	}
	return wrapNil("make link", name, unix.Symlinkat(target, fd, base))
}

// Readlink returns what the symbolic link name says.
func (t *Tree) Readlink(name string) (string, error) {
	fd, base, err := t.parent(name)
	if err != nil {
		return "", wrap("read link", name, err)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, base, buf)
	if err != nil {
		return "", wrap("read link", name, err)
	}
	return string(buf[:n]), nil
}

// Link makes name a further name of the entry old, which is no directory.
func (t *Tree) Link(old, name string) error {
	fd, oldBase, err := t.parent(old)
	if err != nil {
		return wrap("link", old, err)
	}
	oldFD, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return wrap("link", old, err)
	}
	defer unix.Close(oldFD)
	newFD, base, err := t.parent(name)
	if err != nil {
		return wrap("link", name, err)
	}
	if err := unix.Linkat(oldFD, oldBase, newFD, base, 0); err != nil {
		return fmt.Errorf("link %q to %q: %w", name, old, err)
	}
	return nil
}

// Fifo makes a named pipe.
func (t *Tree) Fifo(name string) error { return t.mknod(name, unix.S_IFIFO, 0) }

// CharDevice makes a character device node.
func (t *Tree) CharDevice(name string, major, minor uint32) error {
	return t.mknod(name, unix.S_IFCHR, int(unix.Mkdev(major, minor)))
}

// BlockDevice makes a block device node.
func (t *Tree) BlockDevice(name string, major, minor uint32) error {
	return t.mknod(name, unix.S_IFBLK, int(unix.Mkdev(major, minor)))
}

// Whiteout makes name overlayfs's mark for a removed entry.
func (t *Tree) Whiteout(name string) error { return t.CharDevice(name, 0, 0) }

func (t *Tree) mknod(name string, kind uint32, dev int) error {
	fd, base, err := t.parent(name)
	if err != nil {
		return wrap("make node", name, err)
	}
	return wrapNil("make node", name, unix.Mknodat(fd, base, kind|0o600, dev))
}

func wrapNil(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return wrap(verb, name, err)
}
