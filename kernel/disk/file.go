package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Mode says how to open.
type Mode uint8

// Modes are added up.
const (
	// ReadOnly opens without the right to write.
	ReadOnly Mode = 1 << iota
	// Direct asks for I/O past the page cache; without it if the file system has none.
	Direct
	// Create makes a new regular file, and fails with EEXIST if the name is taken.
	Create
)

// File is an open regular file or block device.
type File struct {
	fd          int
	path        string
	blockDevice bool
	direct      bool
	// noDSync is set once the file system turned out not to know RWF_DSYNC.
	noDSync atomic.Bool
}

// Open opens the file or block device of a path. A block device that is opened
// to write is opened exclusively: EBUSY says that it is mounted or otherwise
// in use.
func Open(path string, m Mode) (*File, error) { return openAt(unix.AT_FDCWD, path, path, m) }

func openAt(dir int, name, path string, m Mode) (*File, error) {
	verb, flags := "open", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK
	if m&ReadOnly != 0 {
		flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	}
	if m&Create != 0 {
		verb, flags = "create", flags|unix.O_CREAT|unix.O_EXCL
	}
	f := &File{path: path}
	var stat unix.Stat_t
	if err := unix.Fstatat(dir, name, &stat, 0); err == nil && m&Create == 0 {
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFREG:
		case unix.S_IFBLK:
			f.blockDevice = true
			if m&ReadOnly == 0 {
				flags |= unix.O_EXCL
			}
		default:
			return nil, fmt.Errorf("%s %s: neither a regular file nor a block device: %w", verb, path, unix.ENOTBLK)
		}
	}
	err := unix.EINVAL
	if m&Direct != 0 {
		err = f.open(dir, name, flags|unix.O_DIRECT)
		f.direct = err == 0
	}
	if err == unix.EINVAL {
		err = f.open(dir, name, flags)
	}
	if err != 0 {
		return nil, fmt.Errorf("%s %s: %w", verb, path, err)
	}
	if err := f.checkKind(&stat, m); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) open(dir int, name string, flags int) unix.Errno {
	return untilDone(func() (err error) {
		f.fd, err = unix.Openat(dir, name, flags, 0o600)
		return err
	})
}

// checkKind makes sure that what was opened is what was looked at before, and
// closes it if not.
func (f *File) checkKind(was *unix.Stat_t, m Mode) error {
	var is unix.Stat_t
	err := unix.Fstat(f.fd, &is)
	if err == nil && m&Create == 0 && is.Mode&unix.S_IFMT != was.Mode&unix.S_IFMT {
		err = unix.ESTALE
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", f.path, err), f.Close())
	}
	return nil
}

// Path is the name that the file was opened by.
func (f *File) Path() string { return f.path }

// BlockDevice says that the file is one.
func (f *File) BlockDevice() bool { return f.blockDevice }

// Direct says whether I/O goes past the page cache; then addresses of memory,
// offsets and lengths must be multiples of the logical block of the disk below.
func (f *File) Direct() bool { return f.direct }

// SizeBytes asks for the size.
func (f *File) SizeBytes() (int64, error) {
	if f.blockDevice {
		n, err := unix.IoctlGetUint64(f.fd, unix.BLKGETSIZE64)
		if err != nil {
			return 0, fmt.Errorf("ask for size of %s: %w", f.path, err)
		}
		return int64(n), nil
	}
	var stat unix.Stat_t
	if err := unix.Fstat(f.fd, &stat); err != nil {
		return 0, fmt.Errorf("ask for size of %s: %w", f.path, err)
	}
	return stat.Size, nil
}

// AllocatedBytes asks how much space a regular file takes on its disk.
func (f *File) AllocatedBytes() (int64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(f.fd, &stat); err != nil {
		return 0, fmt.Errorf("ask for space of %s: %w", f.path, err)
	}
	return stat.Blocks * 512, nil
}

// Sync makes all that was written durable, and the size. After an error it is
// not known what is; asking again says nothing about what was lost before.
func (f *File) Sync() error {
	if err := untilDone(func() error { return unix.Fdatasync(f.fd) }); err != 0 {
		return fmt.Errorf("sync data of %s: %w", f.path, err)
	}
	return nil
}

// Close gives the descriptor back.
func (f *File) Close() error {
	if err := unix.Close(f.fd); err != nil {
		return fmt.Errorf("close %s: %w", f.path, err)
	}
	return nil
}

// untilDone calls f until it is not interrupted; 0 is success.
func untilDone(f func() error) unix.Errno {
	for {
		err := f()
		if err == nil {
			return 0
		}
		if errno := err.(unix.Errno); errno != unix.EINTR {
			return errno
		}
	}
}

// Directory is an open directory of files that are disks.
type Directory struct {
	fd   int
	path string
}

// OpenDirectory opens a directory.
func OpenDirectory(path string) (*Directory, error) {
	d := &Directory{path: path}
	err := untilDone(func() (err error) {
		d.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != 0 {
		return nil, fmt.Errorf("open directory %s: %w", path, err)
	}
	return d, nil
}

// Open opens a file of the directory.
func (d *Directory) Open(name string, m Mode) (*File, error) {
	return openAt(d.fd, name, filepath.Join(d.path, name), m)
}

// Path is the name that the directory was opened by.
func (d *Directory) Path() string { return d.path }

// Remove takes a file's name away.
func (d *Directory) Remove(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Join(d.path, name), err)
	}
	return nil
}

// Rename gives a file another name, which may be taken by another one, at once.
func (d *Directory) Rename(from, to string) error {
	if err := unix.Renameat(d.fd, from, d.fd, to); err != nil {
		return fmt.Errorf("rename %s to %s: %w", filepath.Join(d.path, from), to, err)
	}
	return nil
}

// Sync makes names durable that were added or removed.
func (d *Directory) Sync() error {
	if err := untilDone(func() error { return unix.Fsync(d.fd) }); err != 0 {
		return fmt.Errorf("sync directory %s: %w", d.path, err)
	}
	return nil
}

// Close gives the descriptor back.
func (d *Directory) Close() error {
	if err := unix.Close(d.fd); err != nil {
		return fmt.Errorf("close directory %s: %w", d.path, err)
	}
	return nil
}
