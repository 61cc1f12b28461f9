package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"torpor/host"
)

// network is one bridge network as the state file keeps it.
type network struct {
	Subnet    netip.Prefix                    `json:"subnet"`
	Internal  bool                            `json:"internal,omitempty"`
	Addresses map[host.ContainerID]netip.Addr `json:"addresses"`
}

// gateway is the host's own address: the first of the subnet.
func (n *network) gateway() netip.Addr { return n.Subnet.Masked().Addr().Next() }

// bridge is the device's name; at most 15 bytes.
func bridge(name string) string { return "tp-" + shortHash(name) }

func shortHash(name string) string {
	h := fnv.New64a()
	h.Write([]byte(name))
	return fmt.Sprintf("%011x", h.Sum64()&0xfffffffffff)
}

// state is the content of the state file.
type state struct {
	Version  int                          `json:"version"`
	Networks map[string]*network          `json:"networks"`
	Ports    map[host.ContainerID][]*Port `json:"ports"`
}

const stateVersion = 1

func loadState(path string) (*state, error) {
	s := &state{Version: stateVersion, Networks: map[string]*network{}, Ports: map[host.ContainerID][]*Port{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read network state: %w", err)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read network state %s: %w: %w", path, err, host.ErrCorrupt)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("read network state %s: version %d, this torpor writes %d: %w", path, s.Version, stateVersion, host.ErrUnsupported)
	}
	return s, nil
}

func (s *state) save(path string) error {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write network state: %w", err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write network state: %w", err)
	}
	return os.Rename(path+".new", path)
}

// freeSubnet finds a /24 of 10.88.0.0/13 that neither another network nor a
// route or address of the host uses.
func (s *state) freeSubnet(taken []netip.Prefix) (netip.Prefix, error) {
	for _, n := range s.Networks {
		taken = append(taken, n.Subnet)
	}
	for second := 88; second < 96; second++ {
		for third := range 256 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), byte(third), 0}), 24)
			if !overlapsAny(p, taken) {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("choose subnet: all of 10.88.0.0/13 is in use")
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.Bits() > 0 && p.Overlaps(t) {
			return true
		}
	}
	return false
}

// address gives a container its address on a network, the same as before if it
// had one.
func (n *network) address(id host.ContainerID, want string) (netip.Addr, error) {
	if have, ok := n.Addresses[id]; ok && (want == "" || have.String() == want) {
		return have, nil
	}
	used := map[netip.Addr]bool{n.gateway(): true}
	for other, a := range n.Addresses {
		if other != id {
			used[a] = true
		}
	}
	if want != "" {
		a, err := netip.ParseAddr(want)
		if err != nil || !n.Subnet.Contains(a) || used[a] {
			return netip.Addr{}, fmt.Errorf("give address %s of %s: not free there: %w", want, n.Subnet, host.ErrInvalid)
		}
		n.Addresses[id] = a
		return a, nil
	}
	for a := n.gateway().Next(); n.Subnet.Contains(a.Next()); a = a.Next() { // the last is for broadcast
		if !used[a] {
			n.Addresses[id] = a
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("give address of %s: none is free", n.Subnet)
}

func toIPNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}
