package socket

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Kind is what a socket was made as.
type Kind struct{ Domain, Type, Protocol int }

// Domains, types and protocols of Kind.
const (
	Unix    = unix.AF_UNIX
	IPv4    = unix.AF_INET
	IPv6    = unix.AF_INET6
	Netlink = unix.AF_NETLINK

	Stream    = unix.SOCK_STREAM
	Datagram  = unix.SOCK_DGRAM
	Raw       = unix.SOCK_RAW
	SeqPacket = unix.SOCK_SEQPACKET

	TCP   = unix.IPPROTO_TCP
	UDP   = unix.IPPROTO_UDP
	MPTCP = 262
)

// Internet reports whether the socket has IP addresses.
func (k Kind) Internet() bool { return k.Domain == IPv4 || k.Domain == IPv6 }

// KindOf asks a socket.
func KindOf(fd int) (Kind, error) {
	var k Kind
	for _, o := range []struct {
		name int
		into *int
	}{{unix.SO_DOMAIN, &k.Domain}, {unix.SO_TYPE, &k.Type}, {unix.SO_PROTOCOL, &k.Protocol}} {
		var err error
		if *o.into, err = getInt(fd, unix.SOL_SOCKET, o.name); err != nil {
			return k, fmt.Errorf("read kind of socket: %w", err)
		}
	}
	return k, nil
}

// Namespace returns the number of the network namespace of a socket, the inode
// of /proc/PID/ns/net.
func Namespace(fd int) (uint64, error) {
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return 0, fmt.Errorf("read network namespace of socket: %w", err)
	}
	defer unix.Close(ns)
	var st unix.Stat_t
	if err := unix.Fstat(ns, &st); err != nil {
		return 0, fmt.Errorf("read network namespace of socket: %w", err)
	}
	return st.Ino, nil
}

// New makes a socket, close-on-exec and with O_NONBLOCK. The caller owns it.
func New(k Kind) (int, error) {
	fd, err := unix.Socket(k.Domain, k.Type|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, k.Protocol)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	return fd, nil
}

// NewPair makes two connected sockets of AF_UNIX, close-on-exec and with
// O_NONBLOCK. The caller owns both.
func NewPair(kind int) ([2]int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return pair, fmt.Errorf("make pair of sockets: %w", err)
	}
	return pair, nil
}

// Flags returns whether operations on a socket wait (no O_NONBLOCK), and whether
// its owner gets signals (O_ASYNC).
func Flags(fd int) (blocking, signals bool, err error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return false, false, fmt.Errorf("read flags of socket: %w", err)
	}
	return flags&unix.O_NONBLOCK == 0, flags&unix.O_ASYNC != 0, nil
}
