package openfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// openTries bounds the lookups repeated because of EAGAIN, which openat2 gives
// when any rename of the machine happened while it followed "..".
const openTries = 10000

// Flags of open(2) that package syscall lacks on some machines.
const (
	OpenPath    = unix.O_PATH
	OpenNoATime = unix.O_NOATIME
	OpenDirect  = unix.O_DIRECT
	OpenTmpfile = unix.O_TMPFILE
)

// Root is the root directory of a process, with all that is mounted there. A
// lookup never leaves it, whatever symbolic links say. Close it.
type Root struct {
	fd   int
	name string
	self int // /proc/self/fd of this process
}

// OpenRoot opens the root directory of a process.
func OpenRoot(pid int) (*Root, error) {
	r := &Root{name: fmt.Sprintf("/proc/%d/root", pid)}
	var err error
	if r.fd, err = unix.Open(r.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open root directory of %d: %w", pid, err)
	}
	if r.self, err = unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		unix.Close(r.fd)
		return nil, fmt.Errorf("open own descriptors: %w", err)
	}
	return r, nil
}

// Close releases the descriptors.
func (r *Root) Close() error { return errors.Join(unix.Close(r.fd), unix.Close(r.self)) }

// Open opens the file at a path below the root, close-on-exec. The caller owns
// the descriptor.
func (r *Root) Open(path string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Mode: uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	var err error
	for range openTries {
		var fd int
		if fd, err = unix.Openat2(r.fd, path, &how); err == nil {
			return fd, nil
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return -1, &os.PathError{Op: "open", Path: path, Err: err}
}

// Reopen opens the file of an open file of this process a second time, with
// other flags. The caller owns the descriptor. It works where /proc is out of
// reach; sockets can not be reopened.
func (r *Root) Reopen(fd, flags int) (int, error) {
	for {
		got, err := unix.Openat(r.self, strconv.Itoa(fd), flags|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("reopen descriptor %d: %w", fd, err)
		}
		return got, nil
	}
}

// PathOf returns the path of an open file, as the kernel knows it now.
func PathOf(fd int) (string, error) { return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) }
