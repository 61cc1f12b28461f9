package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"torpor/host"
)

// Port is a published port: packets to HostPort of the host, on HostIP or on
// every address, go to Target of the container. The client's address stays.
type Port struct {
	Protocol string     `json:"protocol"` // tcp or udp
	HostIP   netip.Addr `json:"host_ip"`  // zero: every address
	HostPort uint16     `json:"host_port"`
	Address  netip.Addr `json:"address"`
	Target   uint16     `json:"target"`
}

func (p *Port) String() string {
	ip := "0.0.0.0"
	if p.HostIP.IsValid() {
		ip = p.HostIP.String()
	}
	return fmt.Sprintf("%s:%d->%d/%s", ip, p.HostPort, p.Target, p.Protocol)
}

// Publish replaces the container's published ports. A port that another
// container has published or another program listens on is an error that
// names it, and nothing is changed.
func (h *Host) Publish(id host.ContainerID, to netip.Addr, specs []host.PortSpec) ([]*Port, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ports []*Port
	for _, spec := range specs {
		p := &Port{Protocol: spec.Protocol, HostPort: spec.Published, Address: to, Target: spec.Target}
		if spec.HostIP != "" {
			ip, err := netip.ParseAddr(spec.HostIP)
			if err != nil {
				return nil, fmt.Errorf("publish port on %q: %w: %w", spec.HostIP, err, host.ErrInvalid)
			}
			if ip.Is6() {
				return nil, fmt.Errorf("publish port on %s: IPv6 addresses: %w", ip, host.ErrUnsupported)
			}
			if !ip.IsUnspecified() {
				p.HostIP = ip
			}
		}
		if err := h.claimLocked(id, p, ports); err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	h.state.Ports[id] = ports
	if err := h.state.save(h.config.StateFile); err != nil {
		return nil, err
	}
	return ports, h.applyRulesLocked()
}

// claimLocked checks that a port is free, and chooses one for port 0. One that
// the container has already is free to it.
func (h *Host) claimLocked(id host.ContainerID, p *Port, others []*Port) error {
	if p.HostPort == 0 {
		for _, old := range h.state.Ports[id] { // the same as before, if it had one
			if old.Protocol == p.Protocol && old.Target == p.Target && !slices.ContainsFunc(others, old.clashes) {
				p.HostPort = old.HostPort
				return nil
			}
		}
	}
	for other, ports := range h.state.Ports {
		if other != id && slices.ContainsFunc(ports, p.clashes) {
			return fmt.Errorf("publish port %d/%s: container %s has published it already: %w", p.HostPort, p.Protocol, other, host.ErrExists)
		}
	}
	if slices.ContainsFunc(others, p.clashes) {
		return fmt.Errorf("publish port %d/%s: it is there twice: %w", p.HostPort, p.Protocol, host.ErrInvalid)
	}
	port, err := testBind(p)
	if err != nil {
		return fmt.Errorf("publish port %d/%s: another program on this host uses it (see: ss -lpn sport = :%d): %w", p.HostPort, p.Protocol, p.HostPort, err)
	}
	p.HostPort = port
	return nil
}

func (p *Port) clashes(o *Port) bool {
	return p.HostPort != 0 && p.HostPort == o.HostPort && p.Protocol == o.Protocol &&
		(!p.HostIP.IsValid() || !o.HostIP.IsValid() || p.HostIP == o.HostIP)
}

// testBind binds the port for a moment and returns its number.
func testBind(p *Port) (uint16, error) {
	address := fmt.Sprintf(":%d", p.HostPort)
	if p.HostIP.IsValid() {
		address = netip.AddrPortFrom(p.HostIP, p.HostPort).String()
	}
	if p.Protocol == "udp" {
		c, err := net.ListenPacket("udp4", address)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}
