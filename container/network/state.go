package network

import (
	"encoding/json"
	"errors"
	"fmt"
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
	Aliases   map[host.ContainerID][]string   `json:"aliases,omitempty"` // names on this network only
}

// gateway is the host's own address: the first of the subnet.
func (n *network) gateway() netip.Addr { return n.Subnet.Masked().Addr().Next() }

// state is the content of the state file.
type state struct {
	Version  int                           `json:"version"`
	Networks map[string]*network           `json:"networks"`
	Ports    map[host.ContainerID][]*Port  `json:"ports"`
	Names    map[host.ContainerID][]string `json:"names,omitempty"` // names on every network
}

const stateVersion = 1

func loadState(path string) (*state, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newState(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read network state: %w", err)
	}
	s, err := parseState(b)
	if err != nil {
		return nil, fmt.Errorf("read network state %s: %w", path, err)
	}
	return s, nil
}

func newState() *state {
	s := &state{Version: stateVersion}
	s.fill()
	return s
}

// fill makes the maps that are not there.
func (s *state) fill() {
	if s.Networks == nil {
		s.Networks = map[string]*network{}
	}
	if s.Ports == nil {
		s.Ports = map[host.ContainerID][]*Port{}
	}
	if s.Names == nil {
		s.Names = map[host.ContainerID][]string{}
	}
	for _, n := range s.Networks {
		if n.Addresses == nil {
			n.Addresses = map[host.ContainerID]netip.Addr{}
		}
		if n.Aliases == nil {
			n.Aliases = map[host.ContainerID][]string{}
		}
	}
}

// parseState reads what save has written. Errors: host.ErrCorrupt, and
// host.ErrUnsupported for another version.
func parseState(b []byte) (*state, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("%w: %w", host.ErrCorrupt, err)
	}
	if version.Version != stateVersion {
		return nil, fmt.Errorf("version %d, this torpor uses %d: %w", version.Version, stateVersion, host.ErrUnsupported)
	}
	s := new(state)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%w: %w", host.ErrCorrupt, err)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", host.ErrCorrupt, err)
	}
	s.fill()
	return s, nil
}

// validate checks what rules and devices are made from.
func (s *state) validate() error {
	for name, n := range s.Networks {
		if n == nil || !usableSubnet(n.Subnet) {
			return fmt.Errorf("network %s has no usable subnet", name)
		}
		for id, a := range n.Addresses {
			if !n.Subnet.Contains(a) || a == n.gateway() {
				return fmt.Errorf("network %s: address %s of %s is not of %s", name, a, id, n.Subnet)
			}
		}
	}
	for id, ports := range s.Ports {
		for _, p := range ports {
			if p == nil || !p.valid() {
				return fmt.Errorf("container %s has a port that can not be", id)
			}
		}
	}
	return nil
}

// usableSubnet reports whether gateway, container and broadcast fit in.
func usableSubnet(p netip.Prefix) bool {
	return p.IsValid() && p.Addr().Is4() && p == p.Masked() && p.Bits() >= 8 && p.Bits() <= 29
}

func (s *state) encode() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write network state: %w", err)
	}
	return b, nil
}

// writeState replaces the file as a whole, durably.
func writeState(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write network state: %w", err)
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write network state: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write network state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write network state: %w", err)
	}
	return nil
}
