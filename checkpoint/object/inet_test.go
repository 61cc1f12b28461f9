package object

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"torpor/kernel/socket"
)

var loopback4 = netip.MustParseAddr("127.0.0.1")

// listenOn makes a listening TCP socket in the container.
func (c *scratch) listenOn(domain, protocol int, a netip.AddrPort) int {
	c.t.Helper()
	fd := c.socket(domain, unix.SOCK_STREAM, protocol)
	check(c.t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	check(c.t, socket.Bind(fd, domain, a))
	check(c.t, socket.Listen(fd, 77))
	return fd
}

// connection makes a TCP connection inside the container.
func (c *scratch) connection(listener int) (client, server int) {
	c.t.Helper()
	client = c.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	a, err := socket.Address(listener)
	check(c.t, err)
	check(c.t, socket.Connect(client, unix.AF_INET, netip.AddrPortFrom(loopback4, a.Port())))
	server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	check(c.t, err)
	return client, server
}

// addAddress gives the container's loopback device an address.
func (c *scratch) addAddress(a string) {
	c.t.Helper()
	c.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, addr)
	})
}

func wantDial(t *testing.T, c *scratch, network, address string) {
	t.Helper()
	c.do(func() error {
		conn, err := net.DialTimeout(network, address, 5*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func TestTCPListening(t *testing.T) {
	tr := newTransfer(t)
	tr.from.addAddress("10.9.0.2/32")
	tr.options.Addresses = map[netip.Addr]netip.Addr{netip.MustParseAddr("10.9.0.2"): netip.MustParseAddr("10.9.0.77")}
	four := tr.from.listenOn(unix.AF_INET, 0, netip.AddrPortFrom(loopback4, 8001))
	check(t, unix.SetNonblock(four, true))
	check(t, unix.SetsockoptInt(four, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 3))
	check(t, unix.SetsockoptInt(four, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 5))
	tr.add(four)
	six := tr.from.socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	check(t, unix.SetsockoptInt(six, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	check(t, socket.Bind(six, unix.AF_INET6, netip.MustParseAddrPort("[::]:8001")))
	check(t, socket.Listen(six, 5))
	tr.add(six)
	tr.add(tr.from.listenOn(unix.AF_INET, 0, netip.MustParseAddrPort("10.9.0.2:8002")))
	tr.add(tr.from.listenOn(unix.AF_INET6, socket.MPTCP, netip.MustParseAddrPort("[::]:8003")))
	for range 2 { // share a port
		fd := tr.from.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		check(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		check(t, socket.Bind(fd, unix.AF_INET, netip.MustParseAddrPort("0.0.0.0:8004")))
		check(t, socket.Listen(fd, 5))
		tr.add(fd)
	}
	bound := tr.from.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	check(t, socket.Bind(bound, unix.AF_INET, netip.MustParseAddrPort("127.0.0.1:8005")))
	b := tr.add(bound)
	fresh := tr.add(tr.from.socket(unix.AF_INET6, unix.SOCK_STREAM, 0))
	waiting := tr.from.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	defer unix.Close(waiting)
	check(t, socket.Connect(waiting, unix.AF_INET, netip.MustParseAddrPort("10.9.0.2:8002")))
	tr.describe()
	tr.to = newScratch(t)
	tr.to.addAddress("10.9.0.77/32")
	tr.make()
	if state, backlog, err := socket.TCPState(tr.fds[0]); err != nil || state != socket.Listening || backlog != 77 {
		t.Errorf("state %d, backlog %d, %v", state, backlog, err)
	}
	wantFlags(t, tr.fds[0], unix.O_RDWR|unix.O_NONBLOCK)
	for _, o := range [][3]int{{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 3}, {unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 5}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}} {
		if got, err := unix.GetsockoptInt(tr.fds[0], o[0], o[1]); err != nil || got != o[2] {
			t.Errorf("option %v is %d, %v", o, got, err)
		}
	}
	for _, address := range []string{"127.0.0.1:8001", "[::1]:8001", "10.9.0.77:8002", "127.0.0.1:8003", "127.0.0.1:8004"} {
		wantDial(t, tr.to, "tcp", address)
	}
	if a, err := socket.Address(tr.fds[b]); err != nil || a.String() != "127.0.0.1:8005" {
		t.Errorf("bound to %s, %v", a, err)
	}
	check(t, socket.Bind(tr.fds[fresh], unix.AF_INET6, netip.MustParseAddrPort("[::1]:8006")))
	if got, err := unix.GetsockoptInt(tr.fds[3], unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || got != socket.MPTCP {
		t.Errorf("protocol %d, %v", got, err)
	}
	check(t, unix.SetNonblock(tr.fds[2], true))
	accepted, _, err := unix.Accept4(tr.fds[2], unix.SOCK_CLOEXEC)
	check(t, err) // that of this test
	unix.Close(accepted)
	_, _, err = unix.Accept4(tr.fds[2], unix.SOCK_CLOEXEC)
	wantErrno(t, err, unix.EAGAIN) // that of the first container is not there
}

func TestTCPInside(t *testing.T) {
	for _, server := range []int{unix.AF_INET, unix.AF_INET6} {
		t.Run(fmt.Sprint("domain ", server), func(t *testing.T) { testTCPInside(t, server) })
	}
}

func testTCPInside(t *testing.T, domain int) {
	tr := newTransfer(t)
	address := netip.AddrPortFrom(loopback4, 8010)
	if domain == unix.AF_INET6 {
		address = netip.MustParseAddrPort("[::]:8010")
	}
	listener := tr.from.listenOn(domain, 0, address)
	client, server := tr.from.connection(listener)
	check(t, unix.SetsockoptInt(server, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	check(t, unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 9}))
	write(t, client, "request")
	write(t, server, "response")
	before, err := socket.Address(client)
	check(t, err)
	s, l, c := tr.add(server), tr.add(listener), tr.add(client)
	tr.move()
	after, err := socket.Address(tr.fds[c])
	if err != nil || after != before {
		t.Errorf("the client is at %s (%v), was at %s", after, err, before)
	}
	if peer, err := socket.Peer(tr.fds[s]); err != nil || plain(peer) != before {
		t.Errorf("the server's peer is %s (%v), not %s", peer, err, before)
	}
	wantRead(t, tr.fds[s], "request")
	wantRead(t, tr.fds[c], "response")
	wantFlow(t, tr.fds[s], tr.fds[c])
	wantFlow(t, tr.fds[c], tr.fds[s])
	for _, o := range []struct{ fd, level, name, want int }{
		{tr.fds[s], unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {tr.fds[s], unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{tr.fds[c], unix.SOL_SOCKET, unix.SO_REUSEADDR, 0},
	} {
		if got, err := unix.GetsockoptInt(o.fd, o.level, o.name); err != nil || got != o.want {
			t.Errorf("option %d of level %d is %d, %v", o.name, o.level, got, err)
		}
	}
	if linger, err := unix.GetsockoptLinger(tr.fds[c], unix.SOL_SOCKET, unix.SO_LINGER); err != nil || linger.Linger != 9 {
		t.Errorf("linger %v, %v", linger, err)
	}
	wantDial(t, tr.to, "tcp", "127.0.0.1:8010")
	unix.Close(tr.fds[c])
	wantRead(t, tr.fds[s], "")
	tr.fds = []int{tr.fds[s], tr.fds[l]}
}

// wantFlow sends more than windows and buffers hold.
func wantFlow(t *testing.T, from, to int) {
	t.Helper()
	const size = 8 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	sent := make(chan error, 1)
	go func() {
		for left := data; len(left) > 0; {
			n, err := unix.Write(from, left)
			if err != nil {
				sent <- err
				return
			}
			left = left[n:]
		}
		sent <- nil
	}()
	got := make([]byte, 0, size)
	for buffer := make([]byte, 1<<16); len(got) < size; {
		n, err := unix.Read(to, buffer)
		if err != nil || n == 0 {
			t.Fatalf("read after %d bytes: %d, %v", len(got), n, err)
		}
		got = append(got, buffer[:n]...)
	}
	check(t, <-sent)
	if !bytes.Equal(got, data) {
		t.Error("data was changed on the way")
	}
}

// TestTCPFull has more data under way than the receiver has room for.
func TestTCPFull(t *testing.T) {
	tr := newTransfer(t)
	listener := tr.from.listenOn(unix.AF_INET, 0, netip.AddrPortFrom(loopback4, 8011))
	client, server := tr.from.connection(listener)
	check(t, unix.SetNonblock(client, true))
	var sent []byte
	for {
		chunk := bytes.Repeat([]byte(fmt.Sprintf("%08d", len(sent))), 1000)
		n, err := unix.Write(client, chunk)
		if err == unix.EAGAIN {
			break
		}
		check(t, err)
		sent = append(sent, chunk[:n]...)
	}
	check(t, unix.Shutdown(client, unix.SHUT_WR))
	c, s := tr.add(client), tr.add(server)
	tr.add(listener)
	first, err := Describe(tr.from.Container, tr.dir, tr.open)
	check(t, err)
	if got := first[s].Socket.Unread; len(got) != 1 || !bytes.Equal(got[0], sent) {
		t.Fatalf("%d bytes of %d are described", sizeOf(got), len(sent))
	}
	wantAll(t, server, sent) // the connection described is unharmed
	for i := range first {
		first[i].Same = -1
	}
	tr.specs = first
	tr.close()
	tr.to = newScratch(t)
	tr.make()
	wantAll(t, tr.fds[s], sent)
	write(t, tr.fds[s], "answer")
	check(t, unix.SetNonblock(tr.fds[c], false))
	wantRead(t, tr.fds[c], "answer")
}

// wantAll reads to the end of a stream.
func wantAll(t *testing.T, fd int, want []byte) {
	t.Helper()
	var got []byte
	check(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	for buffer := make([]byte, 1<<16); ; {
		n, err := unix.Read(fd, buffer)
		if err != nil {
			t.Fatalf("read after %d bytes: %v", len(got), err)
		}
		if n == 0 {
			break
		}
		got = append(got, buffer[:n]...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func TestTCPReset(t *testing.T) {
	for _, k := range []socket.Kind{{Domain: unix.AF_INET}, {Domain: unix.AF_INET6}, {Domain: unix.AF_INET, Protocol: socket.MPTCP}} {
		t.Run(fmt.Sprint(k), func(t *testing.T) { testTCPReset(t, k) })
	}
}

func testTCPReset(t *testing.T, k socket.Kind) {
	tr := newTransfer(t)
	outside := tr.from.listenOn(k.Domain, 0, netip.AddrPortFrom(map[bool]netip.Addr{true: netip.IPv6Loopback(), false: loopback4}[k.Domain == unix.AF_INET6], 5432))
	defer unix.Close(outside)
	address, err := socket.Address(outside)
	check(t, err)
	fd := tr.from.socket(k.Domain, unix.SOCK_STREAM, k.Protocol)
	check(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
	if k.Domain == unix.AF_INET6 {
		check(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	}
	check(t, socket.Connect(fd, k.Domain, address))
	a := tr.add(fd)
	peer, _, err := unix.Accept4(outside, unix.SOCK_CLOEXEC)
	check(t, err)
	defer unix.Close(peer)
	write(t, peer, "lost")
	ended := tr.from.socket(k.Domain, unix.SOCK_STREAM, k.Protocol)
	wantErrno(t, socket.Connect(ended, k.Domain, netip.AddrPortFrom(address.Addr(), 1)), unix.ECONNREFUSED)
	b := tr.add(ended)
	tr.move()
	if got := tr.specs[a].Socket.Reset; got != address.String() {
		t.Errorf("the user is told of %q, want %q", got, address)
	}
	events, err := socket.Poll(tr.fds[a], unix.POLLIN|unix.POLLRDHUP, 0)
	want := int16(unix.POLLIN | unix.POLLRDHUP | unix.POLLHUP)
	if k.Protocol == socket.MPTCP { // which does not show the rest when it is reset
		want = unix.POLLERR | unix.POLLHUP
	}
	if err != nil || events&want != want {
		t.Errorf("poll shows %#x, %v", events, err)
	}
	if on, err := unix.GetsockoptInt(tr.fds[a], unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || on != 1 {
		t.Errorf("keepalive %d, %v", on, err)
	}
	_, err = unix.Read(tr.fds[a], make([]byte, 1))
	wantErrno(t, err, unix.ECONNRESET)
	_, err = unix.SendmsgN(tr.fds[a], []byte("x"), nil, nil, unix.MSG_NOSIGNAL)
	wantErrno(t, err, unix.EPIPE)
	if tr.specs[b].Socket.Reset != "" {
		t.Errorf("a socket that was never connected loses %q", tr.specs[b].Socket.Reset)
	}
}

func TestTCPEnded(t *testing.T) {
	tr := newTransfer(t)
	listener := tr.from.listenOn(unix.AF_INET, 0, netip.AddrPortFrom(loopback4, 8012))
	defer unix.Close(listener)
	client, server := tr.from.connection(listener)
	check(t, socket.Abandon(server))
	unix.Close(server)
	_, err := unix.Read(client, make([]byte, 1))
	wantErrno(t, err, unix.ECONNRESET)
	tr.add(client)
	tr.move()
	if s := tr.specs[0].Socket; s.State != SocketReset || s.Reset != "" {
		t.Errorf("described as %+v", s)
	}
	wantRead(t, tr.fds[0], "") // the error was read before
}

func TestUDP(t *testing.T) {
	tr := newTransfer(t)
	tr.from.addAddress("10.9.0.2/32")
	tr.options.Addresses = map[netip.Addr]netip.Addr{netip.MustParseAddr("10.9.0.2"): netip.MustParseAddr("10.9.0.3")}
	bound := tr.from.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	check(t, unix.SetsockoptInt(bound, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	check(t, unix.SetsockoptInt(bound, unix.SOL_SOCKET, unix.SO_RCVBUF, 100000))
	check(t, socket.Bind(bound, unix.AF_INET, netip.MustParseAddrPort("10.9.0.2:5300")))
	check(t, socket.JoinGroup(bound, socket.Membership{Group: netip.MustParseAddr("224.0.0.251"), Device: "lo"}))
	connected := tr.from.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	check(t, socket.Connect(connected, unix.AF_INET, netip.MustParseAddrPort("10.9.0.2:5300")))
	six := tr.from.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	check(t, socket.Bind(six, unix.AF_INET6, netip.MustParseAddrPort("[::1]:5301")))
	check(t, socket.JoinGroup(six, socket.Membership{Group: netip.MustParseAddr("ff02::fb"), Device: "lo"}))
	a, b, c := tr.add(bound), tr.add(connected), tr.add(six)
	tr.describe()
	if got := tr.specs[a].Socket.Memberships; len(got) != 1 || got[0].Group.String() != "224.0.0.251" {
		t.Errorf("memberships %v", got)
	}
	if got := tr.specs[c].Socket.Memberships; len(got) != 1 || got[0].Group.String() != "ff02::fb" {
		t.Errorf("memberships %v", got)
	}
	tr.to = newScratch(t)
	tr.to.addAddress("10.9.0.3/32")
	tr.make()
	write(t, tr.fds[b], "question")
	wantRead(t, tr.fds[a], "question")
	if peer, err := socket.Peer(tr.fds[b]); err != nil || peer.String() != "10.9.0.3:5300" {
		t.Errorf("peer %s, %v", peer, err)
	}
	if n, err := unix.GetsockoptInt(tr.fds[a], unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || n != 200000 {
		t.Errorf("receive buffer %d, %v", n, err)
	}
	groups := tr.specs[a].Socket.Memberships
	if joined, err := socket.Memberships(tr.fds[a], socket.Kind{Domain: unix.AF_INET}, groups); err != nil || len(joined) != 1 {
		t.Errorf("joined %v, %v", joined, err)
	}
}

func TestNetlink(t *testing.T) {
	tr := newTransfer(t)
	fd := tr.from.socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	check(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 4321, Groups: 1}))
	check(t, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, 5))
	check(t, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1))
	tr.add(fd)
	tr.move()
	port, groups, err := socket.NetlinkAddress(tr.fds[0])
	if err != nil || port != 4321 || fmt.Sprint(groups) != "[1 5]" {
		t.Errorf("port %d, groups %v, %v", port, groups, err)
	}
	tr.to.addAddress("10.9.9.9/32") // RTNLGRP_IPV4_IFADDR
	b := make([]byte, 4096)
	if n, err := unix.Read(tr.fds[0], b); err != nil || n < unix.SizeofNlMsghdr {
		t.Errorf("read %d, %v", n, err)
	}
	if on, err := unix.GetsockoptInt(tr.fds[0], unix.SOL_NETLINK, unix.NETLINK_EXT_ACK); err != nil || on != 1 {
		t.Errorf("option %d, %v", on, err)
	}
}

func TestRefusedSockets(t *testing.T) {
	tr := newTransfer(t)
	tr.add(tr.from.socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP))
	tr.add(tr.from.socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0))
	tr.add(tr.from.socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT))
	tr.add(tr.from.socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE))
	filtered := tr.from.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	check(t, unix.SetsockoptSockFprog(filtered, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET, K: 100}}))
	tr.add(filtered)
	words := []string{"a raw socket", "a packet socket", "a netlink socket of protocol 9", "a socket of IP protocol 136", "a socket with a socket filter"}
	if fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		tr.add(fd)
		words = append(words, "a vsock socket")
	}
	tr.refused(words...)
}

// TestRefusedSocketState has sockets of usual kinds in unusual states.
func TestRefusedSocketState(t *testing.T) {
	tr := newTransfer(t)
	encapsulating := tr.from.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	check(t, unix.SetsockoptInt(encapsulating, unix.IPPROTO_UDP, unix.UDP_ENCAP, 2)) // UDP_ENCAP_ESPINUDP
	tr.add(encapsulating)
	choosing := tr.from.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	// struct ip_mreq_source: group, interface, source.
	request := string([]byte{224, 0, 0, 251, 127, 0, 0, 1, 127, 0, 0, 9})
	check(t, unix.SetsockoptString(choosing, unix.IPPROTO_IP, unix.IP_ADD_SOURCE_MEMBERSHIP, request))
	tr.add(choosing)
	listener := tr.from.listenOn(unix.AF_INET, socket.MPTCP, netip.AddrPortFrom(loopback4, 8020))
	client := tr.from.socket(unix.AF_INET, unix.SOCK_STREAM, socket.MPTCP)
	check(t, socket.Connect(client, unix.AF_INET, netip.AddrPortFrom(loopback4, 8020)))
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	check(t, err)
	for _, fd := range []int{listener, client, server} {
		tr.add(fd)
	}
	foreign, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	tr.add(foreign)
	tr.refused("a socket of another network namespace (descriptor "+itoa(foreign), "a socket with UDP encapsulation", "a socket with a multicast group from chosen sources", "a connection of MPTCP inside")
}

// TestTCPInsideReaddressed has a connection between addresses that are others
// in the second container.
func TestTCPInsideReaddressed(t *testing.T) {
	tr := newTransfer(t)
	was, now := netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.3")
	tr.options.Addresses = map[netip.Addr]netip.Addr{was: now}
	tr.from.addAddress("10.9.0.2/32")
	listener := tr.from.listenOn(unix.AF_INET6, 0, netip.MustParseAddrPort("[::ffff:10.9.0.2]:8030"))
	client := tr.from.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	check(t, socket.Connect(client, unix.AF_INET, netip.AddrPortFrom(was, 8030)))
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	check(t, err)
	write(t, server, "banner")
	for _, fd := range []int{listener, client, server} {
		tr.add(fd)
	}
	tr.describe()
	tr.to = newScratch(t)
	if _, err := Make(tr.to.Container, tr.dir, tr.specs, tr.options); err == nil {
		t.Error("made on an address that the container has not")
	} else {
		wantErrno(t, err, unix.EADDRNOTAVAIL)
	}
	tr.to.addAddress("10.9.0.3/32")
	tr.make()
	wantRead(t, tr.fds[1], "banner")
	wantFlow(t, tr.fds[1], tr.fds[2])
	if peer, err := socket.Peer(tr.fds[1]); err != nil || peer != netip.AddrPortFrom(now, 8030) {
		t.Errorf("the client's peer is %s, %v", peer, err)
	}
	wantDial(t, tr.to, "tcp", "10.9.0.3:8030")
}
