package fusedev

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Connection is an open /dev/fuse.
type Connection struct {
	file *os.File
	fd   int // of file
}

// MountSpec says how a file system looks from outside.
type MountSpec struct {
	Source       string // shown in /proc/self/mountinfo
	Subtype      string // likewise, as fuse.SUBTYPE
	MaxReadBytes int
	ReadOnly     bool
}

// Mount mounts a new FUSE file system at dir, an existing directory, for root
// only. Nothing may touch it before its first request, INIT, was answered.
func Mount(dir string, spec MountSpec) (*Connection, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount %s: open /dev/fuse: %w", dir, err)
	}
	c := Adopt(os.NewFile(uintptr(fd), "/dev/fuse")) // not by epoll
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,max_read=%d", c.fd, unix.S_IFDIR, spec.MaxReadBytes)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME)
	if spec.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(spec.Source, dir, "fuse."+spec.Subtype, flags, data); err != nil {
		c.Close()
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return c, nil
}

// Adopt makes a Connection of a descriptor that was handed over, and owns it.
func Adopt(file *os.File) *Connection {
	return &Connection{file: file, fd: int(file.Fd())} // Fd makes it blocking
}

// File is the descriptor, which stays the Connection's.
func (c *Connection) File() *os.File { return c.file }

// Close closes the descriptor. It must not be called while others are in Read
// or Write.
func (c *Connection) Close() error { return c.file.Close() }

// Read waits for a request and returns its length. io.EOF: the file system is
// unmounted or aborted.
func (c *Connection) Read(buf []byte) (int, error) {
	for {
		n, err := unix.Read(c.fd, buf)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR, unix.ENOENT, unix.EAGAIN: // ENOENT: whoever asked has gone
		case unix.ENODEV:
			return 0, io.EOF
		default:
			return 0, fmt.Errorf("read FUSE request: %w", err)
		}
	}
}

// Write hands an answer to the kernel. It is no error that nobody waits for it
// any more.
func (c *Connection) Write(answer []byte) error {
	for {
		_, err := unix.Write(c.fd, answer)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV):
			return nil
		case errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("write FUSE answer: %w", err)
		}
	}
}

// Duplicate returns another descriptor of the connection, which keeps it alive
// when this process ends. The caller closes it.
func (c *Connection) Duplicate() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate FUSE connection: %w", err)
	}
	return os.NewFile(uintptr(fd), c.file.Name()), nil
}
