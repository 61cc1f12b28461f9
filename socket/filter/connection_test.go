package filter

import (
	"errors"
	"net"
	"os"

	"torpor/kernel/netns"
	"torpor/socket"
)

// suspend takes the socket of a connection of a namespace away.
func suspend(namespace string, c *net.TCPConn) (spec *socket.Spec, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	err = netns.Do(namespace, func() error {
		suspender, err := socket.NewSuspender()
		if err != nil {
			return err
		}
		var got socket.Suspended
		err = raw.Control(func(fd uintptr) { got = suspender.Suspend(int(fd))[0] })
		spec = got.Spec
		return errors.Join(err, got.Err, suspender.Close())
	})
	if err != nil {
		return nil, err
	}
	return spec, c.Close() // silently: it is in repair mode
}

// restore makes the socket again, in the namespace of the calling thread.
func restore(s *socket.Spec) (*net.TCPConn, error) {
	fd, err := socket.Restore(s)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	if err := socket.Resume(fd, s); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
