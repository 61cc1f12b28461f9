package mount

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"torpor/host"
)

// BindOptions says how a bind mount differs from a plain one.
type BindOptions struct {
	Recursive bool // with the mounts below the source
	ReadOnly  bool // also for the mounts below it, if Recursive
	NoSuid    bool
	NoDev     bool
	NoExec    bool
}

// Bind makes source, a file or directory, appear at target, an existing file
// or directory.
func Bind(source, target string, o BindOptions) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	var recursive uint
	if o.Recursive {
		recursive = unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, flags|recursive)
	if err != nil {
		return fmt.Errorf("bind %s: %w", source, err)
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{}
	for _, a := range []struct {
		on  bool
		bit uint64
	}{
		{o.ReadOnly, unix.MOUNT_ATTR_RDONLY},
		{o.NoSuid, unix.MOUNT_ATTR_NOSUID},
		{o.NoDev, unix.MOUNT_ATTR_NODEV},
		{o.NoExec, unix.MOUNT_ATTR_NOEXEC},
	} {
		if a.on {
			attr.Attr_set |= a.bit
		}
	}
	if attr.Attr_set != 0 {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive, &attr); err != nil {
			return fmt.Errorf("set attributes of bind %s: %w", source, err)
		}
	}
	return attach(fd, target)
}

// Tmpfs mounts an empty file system in memory at target. Size is in bytes; 0
// means the kernel's default, half of the memory.
func Tmpfs(target string, sizeBytes int64, mode uint32) error {
	ctx, err := newContext("tmpfs")
	if err != nil {
		return err
	}
	defer ctx.close()
	ctx.set("source", "tmpfs")
	ctx.set("mode", fmt.Sprintf("%o", mode&0o7777))
	if sizeBytes > 0 {
		ctx.set("size", fmt.Sprint(sizeBytes))
	}
	fd, err := ctx.mount(0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(fd, target)
}

// Private stops mounts at and below target from appearing in other mount
// namespaces and the other way round.
func Private(target string) error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make mounts at %s private: %w", target, err)
	}
	return nil
}

// Unmount removes the topmost mount at target. A busy mount is unix.EBUSY; a
// target that is no mount point is unix.EINVAL.
func Unmount(target string) error { return unmount(target, 0) }

// Detach removes the topmost mount at target from the namespace at once; the
// kernel drops it when its last user has gone.
func Detach(target string) error { return unmount(target, unix.MNT_DETACH) }

func unmount(target string, flags int) error {
	if err := unix.Unmount(target, flags|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// Mounted reports whether target is a mount point. A missing target is not. It
// asks nothing of what is mounted there, which may be dead or not served.
func Mounted(target string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat %s: %w", target, err)
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, fmt.Errorf("stat %s: kernel does not tell mount points: %w", target, host.ErrKernel)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

func attach(fd int, target string) error {
	err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount at %s: %w", target, err)
	}
	return nil
}
