package netlab

import (
	"errors"
	"net"

	"torpor/kernel/socket"
)

// Info asks the kernel about one end of a connection.
func Info(c *net.TCPConn) (info *socket.TCPInfo, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) { info, err = socket.ReadTCPInfo(int(fd)) })
	return info, errors.Join(controlErr, err)
}
