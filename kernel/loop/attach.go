package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says how to attach a device. It does not detach itself (autoclear off).
type Spec struct {
	BackingPath string
	BlockBytes  int // of the device: 512 to 4096, a power of two
	ReadOnly    bool
	// DirectIO: the backing file is read and written without its page cache. If
	// the file system or BlockBytes do not allow it, Attach fails.
	DirectIO bool
}

// attachTries is how often another free device is asked for when somebody else
// was faster.
const attachTries = 100

// Attach makes a device of a file.
func Attach(spec Spec) (Device, error) {
	fd, err := spec.open()
	if err != nil {
		return 0, fmt.Errorf("attach loop device: %w", err)
	}
	defer unix.Close(fd)
	d, err := attach(fd, spec)
	if err != nil {
		return 0, fmt.Errorf("attach loop device to %s: %w", spec.BackingPath, err)
	}
	info, err := d.Info()
	if err == nil && spec.DirectIO && !info.DirectIO {
		err = fmt.Errorf("the kernel refuses direct I/O: the file system of %s has none in blocks of %d bytes",
			spec.BackingPath, spec.BlockBytes)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("attach %s: %w", d, err), d.Detach(spec.BackingPath, time.Second))
	}
	return d, nil
}

// open opens the backing file, not by package os: this would hand it to epoll,
// which asks a FUSE file system for the file's poll method while it keeps a
// processor of Go's. Is the server this process, it may wait for that processor.
func (spec Spec) open() (int, error) {
	mode := unix.O_RDWR | unix.O_CLOEXEC
	if spec.ReadOnly {
		mode = unix.O_RDONLY | unix.O_CLOEXEC
	}
	if spec.DirectIO {
		mode |= unix.O_DIRECT
	}
	for {
		fd, err := unix.Open(spec.BackingPath, mode, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &os.PathError{Op: "open", Path: spec.BackingPath, Err: err}
		}
	}
}

// attach tries free devices until one is not taken by somebody else.
func attach(file int, spec Spec) (Device, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer control.Close()
	for range attachTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return 0, fmt.Errorf("find a free device: %w", err)
		}
		d := Device(n)
		err = d.configure(file, spec)
		if !errors.Is(err, unix.EBUSY) {
			return d, err
		}
	}
	return 0, fmt.Errorf("find a free device: %w", unix.EBUSY)
}

func (d Device) configure(file int, spec Spec) error {
	mode := os.O_RDWR
	if spec.ReadOnly {
		mode = os.O_RDONLY
	}
	node, err := os.OpenFile(d.Path(), mode, 0)
	if err != nil {
		return err
	}
	defer node.Close()
	config := unix.LoopConfig{Fd: uint32(file), Size: uint32(spec.BlockBytes)}
	if spec.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if spec.DirectIO {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], spec.BackingPath)
	if err := unix.IoctlLoopConfigure(int(node.Fd()), &config); err != nil {
		return fmt.Errorf("configure %s: %w", d, err)
	}
	return nil
}
