package mount

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"torpor/host"
)

// fsContext is a file system being configured (fsopen). Its first error stays.
type fsContext struct {
	kind string
	fd   int
	err  error
}

func newContext(kind string) (*fsContext, error) {
	fd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("open file system %s: %w: %w", kind, host.ErrKernel, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open file system %s: %w", kind, err)
	}
	return &fsContext{kind: kind, fd: fd}, nil
}

func (c *fsContext) close() { unix.Close(c.fd) }

func (c *fsContext) set(key, value string) {
	if c.err == nil {
		c.fail("set "+key, unix.FsconfigSetString(c.fd, key, value))
	}
}

// mount creates the file system and returns a mount of it that is nowhere yet.
func (c *fsContext) mount(attrs int) (int, error) {
	if c.err == nil {
		c.fail("create", unix.FsconfigCreate(c.fd))
	}
	if c.err != nil {
		return -1, c.err
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, attrs)
	c.fail("mount", err)
	return fd, c.err
}

func (c *fsContext) fail(what string, err error) {
	if err == nil {
		return
	}
	said := c.log()
	if said != "" {
		said = " (" + said + ")"
	}
	c.err = fmt.Errorf("%s of %s%s: %w", what, c.kind, said, err)
}

// log reads what the kernel had to say. Each read gives one message that
// begins with its weight: "e " for an error.
func (c *fsContext) log() string {
	var said []string
	buf := make([]byte, 1024)
	for range 32 {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n <= 0 {
			break
		}
		line := strings.TrimSpace(string(buf[:n]))
		if text, ok := strings.CutPrefix(line, "e "); ok {
			said = append(said, text)
		}
	}
	return strings.Join(said, "; ")
}
