package network

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"torpor/host"
)

// pool is what subnets are chosen from; each is a /24 of it.
var pool = netip.MustParsePrefix("10.88.0.0/13")

// chooseSubnet takes the spec's subnet, or one of the pool that neither another
// network nor a route of the host uses.
func (s *state) chooseSubnet(spec host.NetworkSpec) (netip.Prefix, error) {
	taken, err := hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	if len(spec.Subnets) == 0 {
		return s.freeSubnet(taken)
	}
	p, err := wantedSubnet(spec)
	if err != nil {
		return p, err
	}
	for name, n := range s.Networks {
		if name != spec.Name && n.Subnet.Overlaps(p) {
			return p, fmt.Errorf("use subnet %s: network %s has %s: %w", p, name, n.Subnet, host.ErrExists)
		}
	}
	if other, ok := overlapping(p, taken); ok {
		return p, fmt.Errorf("use subnet %s: this host has a route to %s: %w", p, other, host.ErrExists)
	}
	return p, nil
}

func wantedSubnet(spec host.NetworkSpec) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(spec.Subnets[0])
	if err == nil && p.Addr().Is6() || len(spec.Subnets) > 1 {
		return p, fmt.Errorf("use subnets %v of network %s: only one, of IPv4, is %w", spec.Subnets, spec.Name, host.ErrUnsupported)
	}
	if err != nil || !usableSubnet(p.Masked()) {
		return p, fmt.Errorf("use subnet %q of network %s: not of the form 10.1.2.0/24: %w", spec.Subnets[0], spec.Name, host.ErrInvalid)
	}
	return p.Masked(), nil
}

// hostPrefixes are the networks that the host reaches otherwise.
func hostPrefixes() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var taken []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok {
			ones, _ := r.Dst.Mask.Size()
			taken = append(taken, netip.PrefixFrom(a, ones))
		}
	}
	return taken, nil
}

func (s *state) freeSubnet(taken []netip.Prefix) (netip.Prefix, error) {
	for _, n := range s.Networks {
		taken = append(taken, n.Subnet)
	}
	const bits = 24
	for a := pool.Addr(); pool.Contains(a); a = plus(a, 1<<(32-bits)) {
		p := netip.PrefixFrom(a, bits)
		if _, used := overlapping(p, taken); !used {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("choose subnet: all of %s is in use (name one in the file: networks.NAME.ipam.config)", pool)
}

// overlapping finds a prefix that shares addresses with p; a default route does
// not count.
func overlapping(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, t := range taken {
		if t.Bits() > 0 && p.Overlaps(t) {
			return t, true
		}
	}
	return netip.Prefix{}, false
}

// plus is the address n further on.
func plus(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

// address gives a container its address on a network: the wanted one, else the
// one it has, else one that follows from its name. So a container that is made
// anew nearly always gets its old address, which peers may have remembered.
func (n *network) address(id host.ContainerID, want string) (netip.Addr, error) {
	if have, ok := n.Addresses[id]; ok && (want == "" || have.String() == want) {
		return have, nil
	}
	used := map[netip.Addr]host.ContainerID{}
	for other, a := range n.Addresses {
		if other != id {
			used[a] = other
		}
	}
	if want != "" {
		return n.wantedAddress(id, want, used)
	}
	first := n.gateway().Next()
	count := uint32(1)<<(32-n.Subnet.Bits()) - 3 // without network, gateway, broadcast
	start := hash(string(id)) % uint64(count)
	for i := range count {
		a := plus(first, uint32((start+uint64(i))%uint64(count)))
		if _, taken := used[a]; !taken {
			n.Addresses[id] = a
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("give address of %s: all are in use", n.Subnet)
}

func (n *network) wantedAddress(id host.ContainerID, want string, used map[netip.Addr]host.ContainerID) (netip.Addr, error) {
	a, err := netip.ParseAddr(want)
	if err != nil || !n.Subnet.Contains(a) || a == n.gateway() || a == n.Subnet.Addr() || a == n.broadcast() {
		return a, fmt.Errorf("give address %q: not one of %s that a container can have: %w", want, n.Subnet, host.ErrInvalid)
	}
	if other, taken := used[a]; taken {
		return a, fmt.Errorf("give address %s: container %s has it: %w", a, other, host.ErrExists)
	}
	n.Addresses[id] = a
	return a, nil
}

func (n *network) broadcast() netip.Addr { return plus(n.Subnet.Addr(), 1<<(32-n.Subnet.Bits())-1) }

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}

// shortHash is 11 hexadecimal digits, so that a device's name has 14 of the 15
// bytes it may have.
func shortHash(text string) string { return fmt.Sprintf("%011x", hash(text)&0xfffffffffff) }

// hardwareAddress follows from an address, so that peers which remember one
// container's are right about the next with that address.
func hardwareAddress(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return append(net.HardwareAddr{0x02, 0x74}, b[:]...) // locally administered
}

func toIPNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}
