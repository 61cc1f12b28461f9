package socket

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
	"torpor/kernel/thread"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

var kinds = []Kind{
	{IPv4, Stream, TCP}, {IPv6, Stream, TCP}, {IPv4, Stream, MPTCP}, {IPv6, Stream, MPTCP}, {IPv4, Datagram, UDP}, {IPv6, Datagram, UDP},
	{Unix, Stream, 0}, {Unix, Datagram, 0}, {Unix, SeqPacket, 0}, {Netlink, Raw, 0},
}

// inNamespace runs f in a network namespace of its own; it returns an error
// instead of ending the test.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	err := thread.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOptionsAreTaken sets every option that a socket shows to what it shows:
// one that is shown and not taken must not be in the table.
func TestOptionsAreTaken(t *testing.T) {
	inNamespace(t, func() error {
		for _, k := range kinds {
			fd, err := New(k)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			options, err := Read(fd, k, false)
			if err != nil {
				return err
			}
			if len(options) < 10 || !options.Valid(k) {
				t.Errorf("%v: %d options, valid %v", k, len(options), options.Valid(k))
			}
			if !options.idempotent(t, fd, k) {
				continue
			}
			again, err := Read(fd, k, false)
			if err != nil {
				return err
			}
			if differ := again.Without(options); len(differ) > 0 {
				t.Errorf("%v: setting options to what they are changes %v", k, differ)
			}
		}
		return nil
	})
}

func (a Options) idempotent(t *testing.T, fd int, k Kind) bool {
	ok := true
	for i := range a {
		for _, phase := range []Phase{BeforeBind, AfterBind} {
			if err := a[i:i+1].Set(fd, phase); err != nil {
				t.Errorf("%v: %v", k, err)
				ok = false
			}
		}
	}
	return ok
}

// TestOptionsCarryOver changes options of one socket and sets another to what
// it then shows.
func TestOptionsCarryOver(t *testing.T) {
	changes := []Option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, []byte{1}}, {unix.SOL_SOCKET, unix.SO_REUSEPORT, []byte{1}},
		{unix.SOL_SOCKET, unix.SO_BROADCAST, []byte{1}}, {unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("lo")},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, []byte{1}}, {unix.SOL_SOCKET, unix.SO_PRIORITY, []byte{5}},
		{unix.SOL_SOCKET, unix.SO_MARK, []byte{9}}, {unix.SOL_SOCKET, unix.SO_RCVLOWAT, []byte{3}},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, []byte{1}}, {unix.SOL_SOCKET, unix.SO_LINGER, []byte{1, 0, 0, 0, 7}},
		{unix.SOL_SOCKET, unix.SO_RCVTIMEO, []byte{4}}, {unix.SOL_SOCKET, unix.SO_SNDTIMEO, []byte{5}},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, []byte{0, 0, 1}}, {unix.SOL_SOCKET, unix.SO_RCVBUF, []byte{0, 0, 2}},
		{unix.SOL_SOCKET, unix.SO_PASSCRED, []byte{1}}, {unix.SOL_SOCKET, unix.SO_PEEK_OFF, []byte{2}},
		{unix.IPPROTO_IP, unix.IP_TOS, []byte{0x10}}, {unix.IPPROTO_IP, unix.IP_TTL, []byte{9}},
		{unix.IPPROTO_IP, unix.IP_FREEBIND, []byte{1}}, {unix.IPPROTO_IP, unix.IP_TRANSPARENT, []byte{1}},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, []byte{1}}, {unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, []byte{2}},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, []byte{8}}, {unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, nil},
		{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, []byte{1}}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS, []byte{4}},
		{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, []byte{3}}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, []byte{1}},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, []byte{1}}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, []byte{60}},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, []byte{10}}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, []byte{4}},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, []byte{0, 8}}, {unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, []byte{3}},
		{unix.IPPROTO_TCP, unix.TCP_CONGESTION, []byte("reno")}, {unix.IPPROTO_TCP, unix.TCP_FASTOPEN, []byte{16}},
		{unix.IPPROTO_TCP, unix.TCP_MAXSEG, []byte{0, 4}}, {unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, []byte{0, 64}},
		{unix.IPPROTO_UDP, udpSegment, []byte{0, 2}}, {unix.IPPROTO_UDP, udpGRO, []byte{1}},
		{unix.SOL_NETLINK, unix.NETLINK_PKTINFO, []byte{1}}, {unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, []byte{1}},
	}
	used := make([]bool, len(changes))
	inNamespace(t, func() error {
		for _, k := range kinds {
			if err := carryOver(t, k, changes, used); err != nil {
				return fmt.Errorf("%v: %w", k, err)
			}
		}
		return nil
	})
	for i, ok := range used {
		if !ok {
			t.Errorf("no socket takes option %d of level %d", changes[i].Name, changes[i].Level)
		}
	}
}

func carryOver(t *testing.T, k Kind, changes []Option, used []bool) error {
	var fds [3]int // the default, the changed, the new one
	var all [3]Options
	for i := range fds {
		var err error
		if fds[i], err = New(k); err != nil {
			return err
		}
		defer unix.Close(fds[i])
	}
	for i, o := range changes {
		if o.Level == unix.SOL_SOCKET && (o.Name == unix.SO_SNDBUF || o.Name == unix.SO_RCVBUF) && k.Domain == Netlink {
			continue
		}
		found, _ := lookUp(o)
		value := append(append([]byte{}, o.Value...), make([]byte, found.lenBytes-len(o.Value))...)
		if found.applies(k) && found.set(fds[1], value) == nil {
			used[i] = true
		}
	}
	for i := range 2 {
		var err error
		if all[i], err = Read(fds[i], k, false); err != nil {
			return err
		}
	}
	differ := all[1].Without(all[0])
	if len(differ) < 3 {
		t.Errorf("%v: only %v differ", k, differ)
	}
	for _, phase := range []Phase{BeforeBind, AfterBind} {
		if err := differ.Set(fds[2], phase); err != nil {
			return err
		}
	}
	var err error
	if all[2], err = Read(fds[2], k, false); err != nil {
		return err
	}
	if left := all[1].Without(all[2]); len(left) > 0 {
		t.Errorf("%v: not carried over: %v", k, left)
	}
	return nil
}

func TestReaddressed(t *testing.T) {
	options := Options{{unix.IPPROTO_IP, unix.IP_MULTICAST_IF, []byte{10, 9, 0, 2}}, {unix.IPPROTO_IP, unix.IP_TTL, []byte{10, 9, 0, 2}}}
	changed := options.Readdressed(func(netip.Addr) netip.Addr { return netip.MustParseAddr("10.9.0.3") })
	if got := fmt.Sprint(changed); got != "[{0 32 [10 9 0 3]} {0 2 [10 9 0 2]}]" {
		t.Errorf("got %s", got)
	}
}
