package openfile

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Identity tells files apart while they exist.
type Identity struct{ Dev, Inode uint64 }

// IdentityOf returns the identity in what stat says.
func IdentityOf(st *syscall.Stat_t) Identity { return Identity{st.Dev, st.Ino} }

// FileSystem is the type of a file system, the magic number of statfs(2).
type FileSystem int64

// The file systems whose files are special.
const (
	Procfs    FileSystem = unix.PROC_SUPER_MAGIC
	Sysfs     FileSystem = unix.SYSFS_MAGIC
	Cgroupfs  FileSystem = unix.CGROUP_SUPER_MAGIC
	Cgroup2fs FileSystem = unix.CGROUP2_SUPER_MAGIC
	Nsfs      FileSystem = unix.NSFS_MAGIC
	Hugetlbfs FileSystem = unix.HUGETLBFS_MAGIC
	Tmpfs     FileSystem = unix.TMPFS_MAGIC
	Secretmem FileSystem = unix.SECRETMEM_MAGIC
	Mqueue    FileSystem = 0x19800202 // MQUEUE_MAGIC of ipc/mqueue.c
	Pidfs     FileSystem = 0x50494446 // PID_FS_MAGIC of linux/magic.h
)

// FileSystemOf returns the type of the file system of an open file.
func FileSystemOf(fd int) (FileSystem, error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(fd, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read file system of descriptor %d: %w", fd, err)
		}
		return FileSystem(st.Type), nil
	}
}

// Flags returns access mode and status flags, as F_GETFL has them.
func Flags(fd int) (int, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return 0, fmt.Errorf("read flags of descriptor %d: %w", fd, err)
	}
	return flags, nil
}

// SetFlags changes the status flags that F_SETFL can change.
func SetFlags(fd, flags int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags); err != nil {
		return fmt.Errorf("set flags %#o of descriptor %d: %w", flags, fd, err)
	}
	return nil
}

// Signal returns the signal that F_SETSIG chose; 0: the usual one. An open file
// with O_PATH has none.
func Signal(fd int) (int, error) {
	signal, err := unix.FcntlInt(uintptr(fd), unix.F_GETSIG, 0)
	if err == unix.EBADF {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read signal of descriptor %d: %w", fd, err)
	}
	return signal, nil
}

// SetSignal chooses the signal.
func SetSignal(fd, signal int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETSIG, signal); err != nil {
		return fmt.Errorf("set signal of descriptor %d: %w", fd, err)
	}
	return nil
}

// Duplicate returns another descriptor of the same open file, close-on-exec.
// The caller owns it.
func Duplicate(fd int) (int, error) {
	got, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor %d: %w", fd, err)
	}
	return got, nil
}
