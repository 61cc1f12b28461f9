package tree

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// OpaqueXattr, with the value "y", makes overlayfs hide what lower layers have
// in a directory.
const OpaqueXattr = "trusted.overlay.opaque"

// Meta is what an entry has besides name and content.
type Meta struct {
	Mode    uint32 // the lower 12 bits; not used for links
	UID     uint32
	GID     uint32
	ModTime time.Time // also becomes the access time
	Xattrs  map[string]string
}

// SetFile gives the open file f its metadata.
func SetFile(f *os.File, m Meta) error {
	fd := int(f.Fd())
	// Changing the owner clears set-user-ID bits and capabilities, so it is first.
	if err := unix.Fchown(fd, int(m.UID), int(m.GID)); err != nil {
		return wrap("change owner of", f.Name(), err)
	}
	for key, value := range m.Xattrs {
		if err := setXattr(procPath(fd), key, value); err != nil {
			return fmt.Errorf("set attribute %s of %q: %w", key, f.Name(), err)
		}
	}
	if err := unix.Fchmod(fd, m.Mode&0o7777); err != nil {
		return wrap("change mode of", f.Name(), err)
	}
	return wrapNil("set time of", f.Name(), setTimes(fd, m.ModTime))
}

// Set gives the entry name its metadata; "." is the tree's own directory. Of a
// symbolic link only owner and time are set.
func (t *Tree) Set(name string, m Meta) error {
	fd, isLink, err := t.openEntry(name)
	if err != nil {
		return wrap("open", name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fchownat(fd, "", int(m.UID), int(m.GID), unix.AT_EMPTY_PATH); err != nil {
		return wrap("change owner of", name, err)
	}
	if !isLink {
		for key, value := range m.Xattrs {
			if err := setXattr(procPath(fd), key, value); err != nil {
				return fmt.Errorf("set attribute %s of %q: %w", key, name, err)
			}
		}
		if err := unix.Chmod(procPath(fd), m.Mode&0o7777); err != nil {
			return wrap("change mode of", name, err)
		}
	}
	return wrapNil("set time of", name, setTimes(fd, m.ModTime))
}

// SetTime sets the modification time of the directory name. Anything else, and
// a missing entry, is left alone: an archive may have replaced the directory.
func (t *Tree) SetTime(name string, modTime time.Time) error {
	fd, _, err := t.openEntry(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return wrap("open", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return wrapNil("set time of", name, setTimes(fd, modTime))
}

// SetOpaque marks the directory name so that lower layers do not show in it.
func (t *Tree) SetOpaque(name string) error {
	fd, _, err := t.openEntry(name)
	if err != nil {
		return wrap("open", name, err)
	}
	defer unix.Close(fd)
	return wrapNil("make opaque", name, unix.Setxattr(procPath(fd), OpaqueXattr, []byte("y"), 0))
}

// openEntry opens the entry itself, a link too, as an O_PATH descriptor.
func (t *Tree) openEntry(name string) (fd int, isLink bool, err error) {
	if name == "." {
		fd, err = t.openDir(".")
		return fd, false, err
	}
	dir, base, err := t.parent(name)
	if err != nil {
		return -1, false, err
	}
	fd, err = unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, false, err
	}
	return fd, st.Mode&unix.S_IFMT == unix.S_IFLNK, nil
}

// setXattr sets one attribute. User attributes and ACLs are a convenience that
// some file systems and kinds of entry do not have; others matter.
func setXattr(file, key, value string) error {
	err := unix.Setxattr(file, key, []byte(value), 0)
	optional := strings.HasPrefix(key, "user.") || strings.HasPrefix(key, "system.posix_acl_")
	if optional && (err == unix.ENOTSUP || err == unix.EPERM) {
		return nil
	}
	return err
}

func setTimes(fd int, modTime time.Time) error {
	ts, err := unix.TimeToTimespec(modTime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
}

// SyncFS writes everything that the file system of path holds in memory to its
// disk, which is cheaper than one fsync for each of many new files.
func SyncFS(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", path, err)
	}
	defer unix.Close(fd)
	return wrapNil("sync file system of", path, unix.Syncfs(fd))
}
