package socket

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Diagnosis asks the kernel about single sockets of one network namespace
// (sock_diag(7)). It is for one goroutine at a time. Close it.
type Diagnosis struct {
	fd  int
	seq uint32
	b   [8192]byte
}

// OpenDiagnosis is for the namespace of the calling thread.
func OpenDiagnosis() (*Diagnosis, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open socket diagnosis: %w", err)
	}
	return &Diagnosis{fd: fd}, nil
}

// Close releases it.
func (d *Diagnosis) Close() error { return unix.Close(d.fd) }

// Of linux/inet_diag.h.
const (
	inetDiagInfo = 2  // INET_DIAG_INFO: who asks for it, and has CAP_NET_ADMIN, is shown
	inetDiagMD5  = 18 // INET_DIAG_MD5SIG

	inetRequestBytes = 56 // struct inet_diag_req_v2
	inetMessageBytes = 72 // struct inet_diag_msg
)

// Signed reports whether segments of a TCP connection are signed by keys (RFC
// 2385), which nothing else shows. domain is that of the socket.
func (d *Diagnosis) Signed(domain int, local, remote netip.AddrPort) (bool, error) {
	d.seq++
	b := d.b[:unix.NLMSG_HDRLEN+inetRequestBytes]
	clear(b)
	order := binary.NativeEndian
	order.PutUint32(b, uint32(len(b)))
	order.PutUint16(b[4:], nl.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(b[6:], unix.NLM_F_REQUEST)
	order.PutUint32(b[8:], d.seq)
	request := b[unix.NLMSG_HDRLEN:]
	request[0], request[1], request[2] = byte(domain), unix.IPPROTO_TCP, 1<<(inetDiagInfo-1)
	order.PutUint32(request[4:], ^uint32(0)) // states
	id := request[8:]
	binary.BigEndian.PutUint16(id, local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	putAddress(id[4:20], domain, local.Addr())
	putAddress(id[20:36], domain, remote.Addr())
	order.PutUint32(id[40:], ^uint32(0)) // INET_DIAG_NOCOOKIE
	order.PutUint32(id[44:], ^uint32(0))
	if err := unix.Sendto(d.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("ask for keys of connection: %w", err)
	}
	signed, err := d.answer()
	if err != nil {
		return false, fmt.Errorf("ask for keys of connection %s %s: %w", local, remote, err)
	}
	return signed, nil
}

func putAddress(b []byte, domain int, a netip.Addr) {
	if domain == IPv4 {
		a = a.Unmap()
	} else if a.Is4() {
		a = netip.AddrFrom16(a.As16())
	}
	copy(b, a.AsSlice())
}

func (d *Diagnosis) answer() (bool, error) {
	for {
		n, _, err := unix.Recvfrom(d.fd, d.b[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, err
		}
		b := d.b[:n]
		if n < unix.NLMSG_HDRLEN || binary.NativeEndian.Uint32(b[8:]) != d.seq {
			continue // late answer to a question that failed
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			return false, netlinkError(b[unix.NLMSG_HDRLEN:])
		}
		if n < unix.NLMSG_HDRLEN+inetMessageBytes {
			return false, unix.EPROTO
		}
		attrs, err := nl.ParseRouteAttr(b[unix.NLMSG_HDRLEN+inetMessageBytes:])
		if err != nil {
			return false, err
		}
		for _, a := range attrs {
			if a.Attr.Type == inetDiagMD5 && len(a.Value) > 0 {
				return true, nil
			}
		}
		return false, nil
	}
}

func netlinkError(b []byte) error {
	if len(b) < intBytes || nativeInt(b) == 0 {
		return unix.EPROTO
	}
	return unix.Errno(-nativeInt(b))
}

// tcpAOInfo is TCP_AO_INFO of linux/tcp.h.
const tcpAOInfo = 40

// Authenticated reports whether segments of a TCP socket are authenticated by
// keys (TCP-AO, RFC 5925; since Linux 6.7). Errors: ENOPROTOOPT from a kernel
// without.
func Authenticated(fd int) (bool, error) {
	var info [64]byte // struct tcp_ao_info_opt is shorter
	_, err := getRaw(fd, unix.IPPROTO_TCP, tcpAOInfo, info[:])
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask for keys of connection: %w", err)
	}
	return true, nil
}
