package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

func nativeInt(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }

// Address returns the address of a socket of IPv4 or IPv6; the zero AddrPort:
// none.
func Address(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read address of socket: %w", err)
	}
	return addrPort(sa), nil
}

// Peer returns the address that a socket of IPv4 or IPv6 is connected to; the
// zero AddrPort: none.
func Peer(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return netip.AddrPort{}, nil
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read peer of socket: %w", err)
	}
	return addrPort(sa), nil
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(zoneName(sa.ZoneId))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func zoneName(index uint32) string {
	device, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return fmt.Sprint(index)
	}
	return device.Name
}

// sockaddr writes the address as sockets of the domain have it.
func sockaddr(domain int, a netip.AddrPort) (unix.Sockaddr, error) {
	if domain == IPv4 {
		if !a.Addr().Unmap().Is4() {
			return nil, unix.EAFNOSUPPORT
		}
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		device, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		sa.ZoneId = uint32(device.Index)
	}
	return sa, nil
}

// Bind gives a socket of IPv4 or IPv6 its address.
func Bind(fd, domain int, a netip.AddrPort) error {
	sa, err := sockaddr(domain, a)
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		return fmt.Errorf("bind socket to %s: %w", a, err)
	}
	return nil
}

// Connect connects a socket of IPv4 or IPv6. Errors: EINPROGRESS for TCP.
func Connect(fd, domain int, a netip.AddrPort) error {
	sa, err := sockaddr(domain, a)
	if err == nil {
		err = unix.Connect(fd, sa)
	}
	if err != nil {
		return fmt.Errorf("connect socket to %s: %w", a, err)
	}
	return nil
}

// Listen makes a socket accept connections.
func Listen(fd, backlog int) error {
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// NetlinkAddress returns the port id of a netlink socket, 0 before it has one,
// and its groups, numbered from 1.
func NetlinkAddress(fd int) (port uint32, groups []uint32, err error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, nil, fmt.Errorf("read address of socket: %w", err)
	}
	if nl, ok := sa.(*unix.SockaddrNetlink); ok {
		port = nl.Pid
	}
	mask := make([]byte, 4096/8)
	n, err := getRaw(fd, unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS, mask)
	if err != nil {
		return 0, nil, fmt.Errorf("read groups of socket: %w", err)
	}
	for i := range min(n, len(mask)) * 8 {
		if mask[i/8]>>(i%8)&1 != 0 {
			groups = append(groups, uint32(i+1))
		}
	}
	return port, groups, nil
}

// BindNetlink gives a netlink socket its port id and joins groups.
func BindNetlink(fd int, port uint32, groups []uint32) error {
	if port != 0 {
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port}); err != nil {
			return fmt.Errorf("bind netlink socket to %d: %w", port, err)
		}
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(g)); err != nil {
			return fmt.Errorf("join netlink group %d: %w", g, err)
		}
	}
	return nil
}
