package socket

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Membership is a multicast group that a socket has joined on a device.
type Membership struct {
	Group  netip.Addr `json:"group"`
	Device string     `json:"device"`
}

// groupFilter is struct group_filter of linux/in.h without sources; its first
// words are struct group_req.
type groupFilter struct {
	device  uint32
	_       uint32
	group   [128]byte // struct sockaddr_storage
	mode    uint32
	sources uint32
}

// modeExclude is MCAST_EXCLUDE: all sources but those named.
const modeExclude = 0

func newFilter(group netip.Addr, device int) groupFilter {
	f := groupFilter{device: uint32(device)}
	if group.Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&f.group)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: group.As4()}
	} else {
		*(*unix.RawSockaddrInet6)(unsafe.Pointer(&f.group)) = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: group.As16()}
	}
	return f
}

func (f *groupFilter) bytes(n uintptr) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(f)), n) }

func level(group netip.Addr) int {
	if group.Is4() {
		return unix.IPPROTO_IP
	}
	return unix.IPPROTO_IPV6
}

// ErrSources says that a socket takes a multicast group from some sources only.
var ErrSources = errors.New("a multicast group from chosen sources")

// Memberships returns which of the namespace's groups a socket has joined.
// Errors: ErrSources.
func Memberships(fd int, k Kind, groups []Membership) ([]Membership, error) {
	var joined []Membership
	for _, m := range groups {
		if m.Group.Is6() && k.Domain != IPv6 {
			continue
		}
		device, err := net.InterfaceByName(m.Device)
		if err != nil {
			return nil, fmt.Errorf("read multicast groups: %w", err)
		}
		f := newFilter(m.Group, device.Index)
		_, err = getRaw(fd, level(m.Group), unix.MCAST_MSFILTER, f.bytes(unsafe.Sizeof(f)))
		if err == unix.EADDRNOTAVAIL || err == unix.EINVAL || err == unix.ENODEV {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read multicast group %s: %w", m.Group, err)
		}
		if f.mode != modeExclude || f.sources != 0 {
			return nil, ErrSources
		}
		joined = append(joined, m)
	}
	return joined, nil
}

// JoinGroup joins a multicast group.
func JoinGroup(fd int, m Membership) error {
	device, err := net.InterfaceByName(m.Device)
	if err != nil {
		return fmt.Errorf("join multicast group %s: %w", m.Group, err)
	}
	f := newFilter(m.Group, device.Index)
	if err := setRaw(fd, level(m.Group), unix.MCAST_JOIN_GROUP, f.bytes(unsafe.Offsetof(f.mode))); err != nil {
		return fmt.Errorf("join multicast group %s on %s: %w", m.Group, m.Device, err)
	}
	return nil
}

// Groups lists the multicast groups that anybody has joined in the calling
// thread's network namespace.
func Groups() ([]Membership, error) {
	v4, err := readLines("/proc/thread-self/net/igmp")
	if err != nil {
		return nil, err
	}
	v6, err := readLines("/proc/thread-self/net/igmp6")
	if err != nil {
		return nil, err
	}
	groups := parseIGMP(v4)
	for _, fields := range v6 { // index, device, group, users, ...
		if len(fields) < 3 {
			continue
		}
		if b, err := hex.DecodeString(fields[2]); err == nil && len(b) == 16 {
			groups = append(groups, Membership{netip.AddrFrom16([16]byte(b)), fields[1]})
		}
	}
	return groups, nil
}

// parseIGMP parses lines of devices, "2 eth0 : 1 V3", and of their groups, whose
// first field is the address in network byte order, printed as a number.
func parseIGMP(lines [][]string) []Membership {
	var groups []Membership
	device := ""
	for _, fields := range lines {
		if len(fields) > 2 && fields[2] == ":" || len(fields) > 1 && strings.HasSuffix(fields[1], ":") {
			device = strings.TrimSuffix(fields[1], ":")
			continue
		}
		n, err := strconv.ParseUint(fields[0], 16, 32)
		if err != nil || device == "" || len(fields[0]) != 8 {
			continue
		}
		b := []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
		groups = append(groups, Membership{netip.AddrFrom4([4]byte(b)), device})
	}
	return groups
}

func readLines(path string) ([][]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // no IPv6
	}
	if err != nil {
		return nil, fmt.Errorf("read multicast groups: %w", err)
	}
	var lines [][]string
	for line := range strings.Lines(string(b)) {
		lines = append(lines, strings.Fields(line))
	}
	return slices.DeleteFunc(lines, func(f []string) bool { return len(f) == 0 }), nil
}
