package socket

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Option is the value of one socket option, as getsockopt(2) gives it.
type Option struct {
	Level int    `json:"level"`
	Name  int    `json:"name"`
	Value []byte `json:"value"`
}

// Phase says when an option is set.
type Phase int

// The phases of a socket's making.
const (
	BeforeBind Phase = iota
	AfterBind
	Again // those of BeforeBind that repairing, pairing and filling a socket change or leave out
)

// knownOption is an option that is carried over. Those that only unconnected
// sockets have, or that the kernel itself changes on connected ones, are idle.
type knownOption struct {
	level, name, lenBytes int
	phase                 Phase
	idle                  bool
}

const intBytes = 4

// Options that package unix lacks.
const (
	soPreferBusyPoll    = 69
	soTxRehash          = 74
	soPassPIDFD         = 76
	tcpTxDelay          = 37
	ipRecvErrRFC4884    = 26
	ipLocalPortRange    = 51
	ipv6MulticastAll    = 29
	ipv6RecvErrRFC4884  = 31
	udpCork             = 1
	udpNoCheck6Tx       = 101
	udpNoCheck6Rx       = 102
	udpSegment          = 103
	udpGRO              = 104
	netlinkListAllNSID  = 8
	netlinkGetStrictChk = 12
)

// known lists the options that are carried over, in the order in which they are
// set. SO_TIMESTAMP and SO_TIMESTAMPNS exclude each other and come out so.
var known = slices.Concat(
	ints(unix.SOL_SOCKET, BeforeBind, unix.SO_REUSEADDR, unix.SO_REUSEPORT, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_NO_CHECK),
	[]knownOption{{unix.SOL_SOCKET, unix.SO_BINDTODEVICE, unix.IFNAMSIZ, BeforeBind, false}},
	ints(unix.SOL_SOCKET, AfterBind, unix.SO_DEBUG, unix.SO_KEEPALIVE, unix.SO_OOBINLINE, unix.SO_PASSCRED,
		unix.SO_PASSSEC, soPassPIDFD, unix.SO_RCVLOWAT, unix.SO_TIMESTAMP, unix.SO_TIMESTAMPNS, unix.SO_MARK, unix.SO_RXQ_OVFL,
		unix.SO_PEEK_OFF, unix.SO_SELECT_ERR_QUEUE, unix.SO_BUSY_POLL, unix.SO_MAX_PACING_RATE, unix.SO_ZEROCOPY,
		soPreferBusyPoll, soTxRehash),
	[]knownOption{
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 8, AfterBind, false},
		{unix.SOL_SOCKET, unix.SO_LINGER, 8, AfterBind, false},
		{unix.SOL_SOCKET, unix.SO_RCVTIMEO, 16, AfterBind, false},
		{unix.SOL_SOCKET, unix.SO_SNDTIMEO, 16, AfterBind, false},
	},
	ints(unix.IPPROTO_IP, BeforeBind, unix.IP_FREEBIND, unix.IP_TRANSPARENT, unix.IP_BIND_ADDRESS_NO_PORT, ipLocalPortRange),
	ints(unix.IPPROTO_IP, AfterBind, unix.IP_TOS, unix.IP_TTL, unix.IP_RECVOPTS, unix.IP_RETOPTS, unix.IP_PKTINFO, unix.IP_MTU_DISCOVER,
		unix.IP_RECVERR, unix.IP_RECVTTL, unix.IP_RECVTOS, unix.IP_RECVORIGDSTADDR, unix.IP_MINTTL, unix.IP_CHECKSUM,
		unix.IP_RECVFRAGSIZE, ipRecvErrRFC4884, unix.IP_MULTICAST_TTL, unix.IP_MULTICAST_LOOP, unix.IP_MULTICAST_ALL, unix.IP_UNICAST_IF),
	[]knownOption{{unix.IPPROTO_IP, unix.IP_MULTICAST_IF, intBytes, AfterBind, false}},
	ints(unix.IPPROTO_IPV6, BeforeBind, unix.IPV6_V6ONLY, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT),
	ints(unix.IPPROTO_IPV6, AfterBind, unix.IPV6_UNICAST_HOPS, unix.IPV6_MULTICAST_IF, unix.IPV6_MULTICAST_HOPS, unix.IPV6_MULTICAST_LOOP,
		unix.IPV6_MTU_DISCOVER, unix.IPV6_RECVERR, ipv6MulticastAll, ipv6RecvErrRFC4884, unix.IPV6_RECVPKTINFO, unix.IPV6_RECVHOPLIMIT,
		unix.IPV6_RECVRTHDR, unix.IPV6_RECVHOPOPTS, unix.IPV6_RECVDSTOPTS, unix.IPV6_RECVTCLASS, unix.IPV6_TCLASS, unix.IPV6_DONTFRAG,
		unix.IPV6_AUTOFLOWLABEL, unix.IPV6_ADDR_PREFERENCES, unix.IPV6_MINHOPCOUNT, unix.IPV6_RECVORIGDSTADDR, unix.IPV6_UNICAST_IF,
		unix.IPV6_RECVFRAGSIZE),
	ints(unix.SOL_SOCKET, AfterBind, unix.SO_PRIORITY), // IP_TOS changes it
	ints(unix.IPPROTO_TCP, AfterBind, unix.TCP_NODELAY, unix.TCP_CORK, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT,
		unix.TCP_SYNCNT, unix.TCP_LINGER2, unix.TCP_DEFER_ACCEPT, unix.TCP_THIN_LINEAR_TIMEOUTS, unix.TCP_USER_TIMEOUT,
		unix.TCP_NOTSENT_LOWAT, unix.TCP_SAVE_SYN, unix.TCP_INQ, tcpTxDelay),
	[]knownOption{
		{unix.IPPROTO_TCP, unix.TCP_CONGESTION, 16, AfterBind, false},
		{unix.IPPROTO_TCP, unix.TCP_MAXSEG, intBytes, AfterBind, true},
		{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, intBytes, AfterBind, true},
		{unix.IPPROTO_TCP, unix.TCP_FASTOPEN, intBytes, AfterBind, true},
		{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, intBytes, AfterBind, true},
	},
	ints(unix.IPPROTO_UDP, AfterBind, udpCork, udpNoCheck6Tx, udpNoCheck6Rx, udpSegment, udpGRO),
	ints(unix.SOL_NETLINK, AfterBind, unix.NETLINK_PKTINFO, unix.NETLINK_BROADCAST_ERROR, unix.NETLINK_NO_ENOBUFS, netlinkListAllNSID,
		unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK, netlinkGetStrictChk),
	buffers(),
)

// buffers are sizes that the program has chosen. The kernel shows twice the
// value that was set.
func buffers() []knownOption {
	return ints(unix.SOL_SOCKET, BeforeBind, unix.SO_SNDBUF, unix.SO_RCVBUF)
}

func ints(level int, phase Phase, names ...int) []knownOption {
	var all []knownOption
	for _, name := range names {
		all = append(all, knownOption{level, name, intBytes, phase, false})
	}
	return all
}

// datagrams are those that streams show and do not take.
var datagrams = map[int][]int{
	unix.IPPROTO_IP:   {unix.IP_MULTICAST_TTL, unix.IP_MULTICAST_LOOP, unix.IP_MULTICAST_IF, unix.IP_MULTICAST_ALL, unix.IP_RECVFRAGSIZE},
	unix.IPPROTO_IPV6: {unix.IPV6_MULTICAST_HOPS, unix.IPV6_MULTICAST_LOOP, unix.IPV6_MULTICAST_IF, ipv6MulticastAll},
}

// singlePath are those of all sockets that MPTCP does not take.
var singlePath = []int{unix.SO_OOBINLINE, unix.SO_MAX_PACING_RATE, unix.SO_ZEROCOPY}

// multipath are those of other levels that MPTCP takes; see mptcp_setsockopt of
// net/mptcp.
var multipath = map[int][]int{
	unix.IPPROTO_IP:   {unix.IP_TOS, unix.IP_FREEBIND, unix.IP_TRANSPARENT, unix.IP_BIND_ADDRESS_NO_PORT, ipLocalPortRange},
	unix.IPPROTO_IPV6: {unix.IPV6_V6ONLY, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT},
	unix.IPPROTO_TCP: {unix.TCP_NODELAY, unix.TCP_CORK, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_DEFER_ACCEPT,
		unix.TCP_CONGESTION, unix.TCP_FASTOPEN, unix.TCP_FASTOPEN_CONNECT, unix.TCP_NOTSENT_LOWAT, unix.TCP_MAXSEG},
}

// applies reports whether sockets of the kind take the option.
func (o knownOption) applies(k Kind) bool {
	if k.Type == Stream && slices.Contains(datagrams[o.level], o.name) || k.Protocol == MPTCP && !o.takenByMPTCP() {
		return false
	}
	switch o.level {
	case unix.IPPROTO_IP:
		return k.Internet()
	case unix.IPPROTO_IPV6:
		return k.Domain == IPv6
	case unix.IPPROTO_TCP:
		return k.Protocol == TCP || k.Protocol == MPTCP
	case unix.IPPROTO_UDP:
		return k.Protocol == UDP && k.Internet()
	case unix.SOL_NETLINK:
		return k.Domain == Netlink
	}
	return o.name != unix.SO_ZEROCOPY || k.Internet()
}

func (o knownOption) takenByMPTCP() bool {
	if o.level == unix.SOL_SOCKET {
		return !slices.Contains(singlePath, o.name)
	}
	return slices.Contains(multipath[o.level], o.name)
}

// Options are what a socket's options are. Defaults are the Options of a fresh
// socket of the same kind.
type Options []Option

// Read reads all options that the socket has; connected ones lack the idle.
func Read(fd int, k Kind, connected bool) (Options, error) {
	locked, lockErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	var all Options
	for _, o := range known {
		if !o.applies(k) || o.idle && connected {
			continue
		}
		if o.buffer() && lockErr == nil && locked>>o.lockBit()&1 == 0 {
			continue // the kernel's own choice
		}
		value := make([]byte, o.lenBytes)
		n, err := getRaw(fd, o.level, o.name, value)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read option %d of level %d: %w", o.name, o.level, err)
		}
		all = append(all, Option{o.level, o.name, bytes.TrimRight(value[:n:n], "\x00")})
	}
	return all, nil
}

func (o knownOption) buffer() bool {
	return o.level == unix.SOL_SOCKET && (o.name == unix.SO_SNDBUF || o.name == unix.SO_RCVBUF)
}

// lockBit is the option's bit in SO_BUF_LOCK: SOCK_SNDBUF_LOCK is 1,
// SOCK_RCVBUF_LOCK is 2.
func (o knownOption) lockBit() int {
	if o.name == unix.SO_RCVBUF {
		return 1
	}
	return 0
}

// Without returns those that differ from the defaults.
func (a Options) Without(defaults Options) Options {
	var differ Options
	for _, o := range a {
		same := slices.ContainsFunc(defaults, func(d Option) bool {
			return d.Level == o.Level && d.Name == o.Name && bytes.Equal(d.Value, o.Value)
		})
		if !same {
			differ = append(differ, o)
		}
	}
	return differ
}

// lookUp finds what is known of an option.
func lookUp(o Option) (knownOption, bool) {
	i := slices.IndexFunc(known, func(k knownOption) bool { return k.level == o.Level && k.name == o.Name })
	if i < 0 {
		return knownOption{}, false
	}
	return known[i], true
}

// Valid reports whether the options are ones that Read gives for the kind.
func (a Options) Valid(k Kind) bool {
	return !slices.ContainsFunc(a, func(o Option) bool {
		found, ok := lookUp(o)
		return !ok || !found.applies(k) || len(o.Value) > found.lenBytes
	})
}

// Readdressed returns the options with the addresses in them changed by to.
func (a Options) Readdressed(to func(netip.Addr) netip.Addr) Options {
	changed := slices.Clone(a)
	for i, o := range changed {
		if o.Level == unix.IPPROTO_IP && o.Name == unix.IP_MULTICAST_IF && len(o.Value) <= intBytes {
			var b [intBytes]byte
			copy(b[:], o.Value)
			if now := to(netip.AddrFrom4(b)).Unmap(); now.Is4() {
				changed[i].Value = now.AsSlice()
			}
		}
	}
	return changed
}

// Set sets those of one phase.
func (a Options) Set(fd int, phase Phase) error {
	for _, o := range a {
		found, ok := lookUp(o)
		if !ok || !found.in(phase) {
			continue
		}
		value := append(slices.Clone(o.Value), make([]byte, found.lenBytes-len(o.Value))...)
		if err := found.set(fd, value); err != nil {
			return fmt.Errorf("set option %d of level %d to %x: %w", o.Name, o.Level, o.Value, err)
		}
	}
	return nil
}

func (o knownOption) in(phase Phase) bool {
	if phase == Again {
		return o.phase == BeforeBind && o.level == unix.SOL_SOCKET
	}
	return o.phase == phase
}

func (o knownOption) set(fd int, value []byte) error {
	if o.buffer() {
		return setBuffer(fd, o.name, int(nativeInt(value))/2)
	}
	return setRaw(fd, o.level, o.name, value)
}

// setBuffer sets a size above the limits of the namespace where that is allowed.
func setBuffer(fd, name, lenBytes int) error {
	force := unix.SO_SNDBUFFORCE
	if name == unix.SO_RCVBUF {
		force = unix.SO_RCVBUFFORCE
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, lenBytes)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, lenBytes)
	}
	return err
}

// Refused names what of a socket can not be carried over: "" if nothing.
func Refused(fd int, k Kind) string {
	n, err := getRaw(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, nil)
	if err == unix.EACCES || err == nil && n > 0 {
		return "a socket filter"
	}
	if locked, err := getInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER); err == nil && locked != 0 {
		return "a socket filter"
	}
	if k.Protocol == TCP {
		if ulp, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP); err == nil && ulp != "" {
			return "the protocol " + ulp + " over TCP"
		}
		if hasHeaders(fd, k.Domain) {
			return "IP options"
		}
	}
	if k.Protocol == UDP {
		if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP); err == nil && v != 0 {
			return "UDP encapsulation"
		}
	}
	return ""
}

// hasHeaders reports whether the socket adds headers to each packet that
// Options do not have.
func hasHeaders(fd, domain int) bool {
	if domain == IPv6 {
		for _, name := range []int{unix.IPV6_HOPOPTS, unix.IPV6_RTHDR, unix.IPV6_DSTOPTS} {
			if n, err := getRaw(fd, unix.IPPROTO_IPV6, name, make([]byte, intBytes)); err == nil && n > 0 {
				return true
			}
		}
		return false
	}
	n, err := getRaw(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, make([]byte, 40))
	return err == nil && n > 0
}

// ReuseAddress reports whether SO_REUSEADDR is among them.
func (a Options) ReuseAddress() bool {
	return slices.ContainsFunc(a, func(o Option) bool { return o.Level == unix.SOL_SOCKET && o.Name == unix.SO_REUSEADDR })
}

func isMark(o Option) bool { return o.Level == unix.SOL_SOCKET && o.Name == unix.SO_MARK }

// Mark returns the value of SO_MARK: 0, the default, if it is not among them.
func (a Options) Mark() uint32 {
	i := slices.IndexFunc(a, isMark)
	if i < 0 {
		return 0
	}
	var b [intBytes]byte
	copy(b[:], a[i].Value)
	return uint32(nativeInt(b[:]))
}

// Unmarked returns those without SO_MARK.
func (a Options) Unmarked() Options {
	if !slices.ContainsFunc(a, isMark) {
		return a
	}
	return slices.DeleteFunc(slices.Clone(a), isMark)
}

// SetMark sets SO_MARK.
func SetMark(fd int, mark uint32) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("mark socket: %w", err)
	}
	return nil
}
