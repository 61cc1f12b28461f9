package filter

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"torpor/kernel/timens"
	"torpor/socket"
)

// suspend takes a connection's socket away: as little of TCP_REPAIR as the
// tests of the filter need.
func suspend(c *net.TCPConn) (*socket.Spec, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket.Spec{Key: keyOf(c), IPv6: c.LocalAddr().(*net.TCPAddr).IP.To4() == nil}
	controlErr := raw.Control(func(fd uintptr) { err = dump(int(fd), s) })
	return s, errors.Join(controlErr, err, c.Close()) // silently: it is in repair mode
}

func keyOf(c *net.TCPConn) socket.Key {
	unmapped := func(a net.Addr) netip.AddrPort {
		ap := a.(*net.TCPAddr).AddrPort()
		addr := ap.Addr().Unmap().WithZone("")
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone("wire0") // net looks devices up in this thread's namespace
		}
		return netip.AddrPortFrom(addr, ap.Port())
	}
	return socket.Key{Local: unmapped(c.LocalAddr()), Remote: unmapped(c.RemoteAddr())}
}

const (
	receiveQueue = 1
	sendQueue    = 2
	repairQuiet  = -1
)

func dump(fd int, s *socket.Spec) error {
	for deadline := time.Now().Add(time.Second); ; {
		if n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ); err != nil || n == 0 || time.Now().After(deadline) {
			break
		}
	}
	// With the fast path packets still come to the socket. It must not take and
	// acknowledge what is not in the record any more: it drops all by a program
	// of one instruction.
	const returnConstant = unix.BPF_RET | unix.BPF_K
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: returnConstant}}); err != nil {
		return err
	}
	domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	s.IPv6 = domain == unix.AF_INET6
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return err
	}
	sequence := func(queue int) (socket.Sequence, error) {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
			return 0, err
		}
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		return socket.Sequence(n), err
	}
	var errs [5]error
	s.SendNext, errs[0] = sequence(sendQueue)
	s.ReceiveNext, errs[1] = sequence(receiveQueue)
	if n, err := unix.IoctlGetInt(fd, unix.SIOCINQ); err == nil && n > 0 {
		s.Unread = make([]byte, n)
		_, _, errs[2] = unix.Recvfrom(fd, s.Unread, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return err
	}
	const timestamps, sack, scaling = 1, 2, 4 // TCPI_OPT of linux/tcp.h
	scales := *(*uint8)(unsafe.Add(unsafe.Pointer(info), 6))
	s.Timestamps, s.SACK, s.Scaling = info.Options&timestamps != 0, info.Options&sack != 0, info.Options&scaling != 0
	s.SendScale, s.ReceiveScale, s.SegmentMaximum = scales&0xf, scales>>4, uint16(info.Advmss)
	errs[3] = repairWindow(fd, &s.Window, unix.SYS_GETSOCKOPT)
	now, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
	s.Clock, errs[4] = socket.Clock{Value: uint32(now), At: timens.Boot()}, err
	return errors.Join(errs[:]...)
}

// repairWindow reads or sets TCP_REPAIR_WINDOW.
func repairWindow(fd int, w *socket.Window, call uintptr) error {
	size := uint32(unsafe.Sizeof(*w))
	length := uintptr(unsafe.Pointer(&size))
	if call == unix.SYS_SETSOCKOPT {
		length = uintptr(size)
	}
	_, _, errno := unix.Syscall6(call, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, uintptr(unsafe.Pointer(w)), length, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// restore makes the socket again, in the namespace of the calling thread.
func restore(s *socket.Spec) (*net.TCPConn, error) {
	domain := unix.AF_INET
	if s.IPv6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	if err := refill(fd, s); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func refill(fd int, s *socket.Spec) error {
	set := func(name, value int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, value) }
	queue := func(which int, next socket.Sequence) error {
		return errors.Join(set(unix.TCP_REPAIR_QUEUE, which), set(unix.TCP_QUEUE_SEQ, int(int32(next))))
	}
	if err := errors.Join(set(unix.TCP_REPAIR, 1), queue(sendQueue, s.SendNext), queue(receiveQueue, s.ReceiveNext-socket.Sequence(len(s.Unread))),
		unix.Bind(fd, sockaddr(s.IPv6, s.Local)), unix.Connect(fd, sockaddr(s.IPv6, s.Remote))); err != nil {
		return err
	}
	type option struct{ code, value uint32 } // struct tcp_repair_opt
	options := []option{{2, uint32(s.SegmentMaximum)}}
	if s.Scaling {
		options = append(options, option{3, uint32(s.SendScale) | uint32(s.ReceiveScale)<<16})
	}
	if s.SACK {
		options = append(options, option{4, 0})
	}
	if s.Timestamps {
		options = append(options, option{8, 0})
	}
	var b []byte
	for _, o := range options {
		b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, o.code), o.value)
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, string(b)); err != nil {
		return err
	}
	if s.Timestamps {
		if err := set(unix.TCP_TIMESTAMP, int(int32(s.Clock.Now(timens.Boot())))); err != nil {
			return err
		}
	}
	if len(s.Unread) > 0 {
		if err := set(unix.TCP_REPAIR_QUEUE, receiveQueue); err != nil {
			return err
		}
		for rest := s.Unread; len(rest) > 0; { // one call takes some 70 KB
			n, err := unix.Write(fd, rest)
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	w := s.Window
	if err := repairWindow(fd, &w, unix.SYS_SETSOCKOPT); err != nil {
		return err // still in repair mode: closing is silent
	}
	return set(unix.TCP_REPAIR, repairQuiet)
}

func sockaddr(v6 bool, a netip.AddrPort) unix.Sockaddr {
	if !v6 {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		if device, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(device.Index)
		}
	}
	return sa
}

// retransmissions returns how many segments a connection had to repeat.
func retransmissions(c *net.TCPConn) (n uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Total_retrans
		}
	})
	return n, errors.Join(controlErr, err)
}

// sendWindow returns what the peer is ready to receive.
func sendWindow(c *net.TCPConn) (n uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Snd_wnd
		}
	})
	return n, errors.Join(controlErr, err)
}
