package socket

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Resetter makes connections that their peer has reset. Close it.
type Resetter struct {
	fd   int
	addr netip.AddrPort
}

// NewResetter listens on the loopback device, which must be up.
func NewResetter() (*Resetter, error) {
	fd, err := New(Kind{IPv4, Stream, TCP})
	if err != nil {
		return nil, err
	}
	r := &Resetter{fd: fd}
	if err := Bind(fd, IPv4, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)); err != nil {
		r.Close()
		return nil, err
	}
	if err := Listen(fd, 16); err != nil {
		r.Close()
		return nil, err
	}
	if r.addr, err = Address(fd); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close releases the listener.
func (r *Resetter) Close() error { return unix.Close(r.fd) }

// resetWaitMs bounds the wait for a reset on its way over the loopback device.
const resetWaitMs = 5000

// Reset connects a new TCP socket and has its peer reset the connection.
func (r *Resetter) Reset(fd, domain int) error {
	target := r.addr
	if domain == IPv6 {
		target = netip.AddrPortFrom(netip.AddrFrom16(target.Addr().As16()), target.Port())
	}
	if err := Connect(fd, domain, target); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("reset connection: %w", err)
	}
	if _, err := Poll(r.fd, unix.POLLIN, resetWaitMs); err != nil {
		return fmt.Errorf("reset connection: %w", err)
	}
	peer, _, err := unix.Accept4(r.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("reset connection: %w", err)
	}
	err = Abandon(peer)
	unix.Close(peer)
	if err != nil {
		return fmt.Errorf("reset connection: %w", err)
	}
	events, err := Poll(fd, 0, resetWaitMs)
	if err == nil && events&HungUp == 0 {
		err = unix.ETIMEDOUT
	}
	if err != nil {
		return fmt.Errorf("reset connection: %w", err)
	}
	return nil
}

// NewReset makes a TCP socket of IPv4 that looks as if its peer had reset the
// connection, without a packet that has to arrive: who calls it may be what
// incoming packets wait for. It needs CAP_NET_ADMIN and the loopback device,
// which must be up. The caller owns it.
func NewReset() (int, error) {
	fd, err := New(Kind{IPv4, Stream, TCP})
	if err != nil {
		return -1, err
	}
	if err := makeReset(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make connection that was reset: %w", err)
	}
	return fd, nil
}

// makeReset connects a socket in repair mode, to nobody, and disconnects it,
// which the kernel does as if for a reset (tcp_disconnect). It sends one, too.
func makeReset(fd int) error {
	const discard = 9
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if err := StartRepair(fd); err != nil {
		return err
	}
	if err := Bind(fd, IPv4, netip.AddrPortFrom(loopback, 0)); err != nil {
		return err
	}
	if err := Connect(fd, IPv4, netip.AddrPortFrom(loopback, discard)); err != nil {
		return err
	}
	if err := EndRepair(fd, false); err != nil {
		return err
	}
	if err := disconnect(fd); err != nil {
		return err
	}
	// It says that there is no connection, and notes that nothing can be read or
	// written any more.
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return err
	}
	return nil
}
