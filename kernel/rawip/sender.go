package rawip

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Sender sends packets of IPv4 and IPv6.
type Sender struct {
	v4, v6 int // -1: the kernel has none

	mu  sync.Mutex
	to4 unix.SockaddrInet4 // written once a packet, to take no memory
	to6 unix.SockaddrInet6
}

// Open opens one in the network namespace of the calling thread. A kernel may
// lack IPv6; sending then fails with EAFNOSUPPORT.
func Open() (*Sender, error) {
	s := &Sender{v4: -1, v6: -1}
	for domain, fd := range map[int]*int{unix.AF_INET: &s.v4, unix.AF_INET6: &s.v6} {
		// IPPROTO_RAW means that the header is included, and that nothing is received.
		opened, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("open raw socket: %w", err)
		}
		*fd = opened
	}
	return s, nil
}

// Send sends a packet. Device is the index of the device for an address that
// is link-local. Errors: EAGAIN if the queue of the device is full.
func (s *Sender) Send(packet []byte, to netip.Addr, device uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := s.v6
	if to.Is4() {
		fd, s.to4.Addr = s.v4, to.As4()
	} else {
		s.to6.Addr, s.to6.ZoneId = to.As16(), 0
		if to.IsLinkLocalUnicast() {
			s.to6.ZoneId = device
		}
	}
	err := error(unix.EAFNOSUPPORT)
	switch {
	case fd < 0:
	case to.Is4():
		err = unix.Sendto(fd, packet, unix.MSG_DONTWAIT, &s.to4)
	default:
		err = unix.Sendto(fd, packet, unix.MSG_DONTWAIT, &s.to6)
	}
	if err != nil {
		return fmt.Errorf("send packet to %s: %w", to, err)
	}
	return nil
}

// Close closes the sockets. A Send that comes later fails.
func (s *Sender) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, fd := range []*int{&s.v4, &s.v6} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}
