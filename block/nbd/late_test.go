package nbd

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lateListener accepts connections whose Write returns late: not before they are
// stopped.
type lateListener struct {
	net.Listener
	late atomic.Bool // from now on
}

func (l *lateListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{UnixConn: accepted.(*net.UnixConn), late: &l.late, stopped: make(chan struct{})}, nil
}

func (l *lateListener) File() (*os.File, error) { return l.Listener.(filer).File() }

type lateConn struct {
	*net.UnixConn
	late    *atomic.Bool
	stopped chan struct{}
	once    sync.Once
}

func (c *lateConn) Write(p []byte) (int, error) {
	late := c.late.Load() // before the client knows what p is
	n, err := c.UnixConn.Write(p)
	if late {
		<-c.stopped
	}
	return n, err
}

func (c *lateConn) SetReadDeadline(t time.Time) error {
	defer c.once.Do(func() { close(c.stopped) })
	return c.UnixConn.SetReadDeadline(t)
}

func (c *lateConn) Close() error {
	defer c.once.Do(func() { close(c.stopped) })
	return c.UnixConn.Close()
}
