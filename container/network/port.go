package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"

	"torpor/host"
)

// Port is a published port: packets to HostPort of the host, on HostIP or on
// every address, go to Target of the container. The client's address stays,
// except for clients on the host's loopback, which the container could not
// answer: they appear as the network's gateway.
//
// Containers of one group may publish the same port: new connections go to them
// in turn, and each stays where it went.
type Port struct {
	Protocol string     `json:"protocol"` // tcp or udp
	HostIP   netip.Addr `json:"host_ip"`  // zero: every address
	HostPort uint16     `json:"host_port"`
	Address  netip.Addr `json:"address"`
	Target   uint16     `json:"target"`
	Group    string     `json:"group,omitempty"`
}

func (p *Port) String() string {
	ip := "0.0.0.0"
	if p.HostIP.IsValid() {
		ip = p.HostIP.String()
	}
	return fmt.Sprintf("%s:%d->%d/%s", ip, p.HostPort, p.Target, p.Protocol)
}

// valid reports whether a rule can be made from it.
func (p *Port) valid() bool {
	return (p.Protocol == "tcp" || p.Protocol == "udp") && p.HostPort != 0 && p.Target != 0 &&
		p.Address.Is4() && (!p.HostIP.IsValid() || p.HostIP.Is4() && !p.HostIP.IsUnspecified())
}

// portKey is what a port occupies on the host.
type portKey struct {
	protocol string
	ip       netip.Addr
	port     uint16
}

func (p *Port) key() portKey { return portKey{p.Protocol, p.HostIP, p.HostPort} }

func (p *Port) clashes(o *Port) bool {
	return p.HostPort != 0 && p.HostPort == o.HostPort && p.Protocol == o.Protocol &&
		(!p.HostIP.IsValid() || !o.HostIP.IsValid() || p.HostIP == o.HostIP)
}

// Publish replaces the container's published ports; published port 0 becomes
// one that is free, the same as before if there was one, or as another of its
// group has. A socket holds each port, so that no other program takes it later.
// Errors: host.ErrExists for a port that another program has, or a container
// that is not of the group, which is named; on any error nothing has changed.
func (h *Host) Publish(id host.ContainerID, group string, to netip.Addr, specs []host.PortSpec) ([]*Port, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ports []*Port
	var fresh []portKey
	for _, spec := range specs {
		p, isNew, err := h.claimLocked(id, group, to, spec, ports)
		if isNew {
			fresh = append(fresh, p.key())
		}
		if err != nil {
			for _, key := range fresh {
				h.releaseLocked(key) // nobody else has it: it was not held before
			}
			return nil, err
		}
		ports = append(ports, p)
	}
	old := h.state.Ports[id]
	h.state.Ports[id] = ports
	if err := h.saveLocked(); err != nil {
		h.state.Ports[id] = old
		return nil, err
	}
	for _, p := range old {
		h.releaseUnusedLocked(p.key())
	}
	if err := h.applyRulesLocked(); err != nil {
		return nil, err
	}
	return ports, forgetFlows(slices.Concat(old, ports))
}

// unpublishLocked drops the container's ports from the state and returns them.
func (h *Host) unpublishLocked(id host.ContainerID) []*Port {
	ports := h.state.Ports[id]
	delete(h.state.Ports, id)
	for _, p := range ports {
		h.releaseUnusedLocked(p.key())
	}
	return ports
}

// releaseUnusedLocked lets a port go that no container has any more.
func (h *Host) releaseUnusedLocked(key portKey) {
	for _, ports := range h.state.Ports {
		if slices.ContainsFunc(ports, func(p *Port) bool { return p.key() == key }) {
			return
		}
	}
	h.releaseLocked(key)
}

// claimLocked makes one port of a spec and holds it. isNew says whether it was
// not held before.
func (h *Host) claimLocked(id host.ContainerID, group string, to netip.Addr, spec host.PortSpec, others []*Port) (p *Port, isNew bool, err error) {
	p = &Port{Protocol: spec.Protocol, HostPort: spec.Published, Address: to, Target: spec.Target, Group: group}
	if p.Protocol == "" {
		p.Protocol = "tcp"
	}
	if p.Protocol != "tcp" && p.Protocol != "udp" {
		return p, false, fmt.Errorf("publish port %d/%s: only tcp and udp are published: %w", p.HostPort, p.Protocol, host.ErrUnsupported)
	}
	if err := p.setHostIP(spec.HostIP); err != nil {
		return p, false, err
	}
	if p.HostPort == 0 {
		p.HostPort = h.chosenLocked(id, p, others)
	}
	for other, ports := range h.state.Ports {
		if other != id && slices.ContainsFunc(ports, func(o *Port) bool { return p.clashes(o) && !p.shares(o) }) {
			return p, false, fmt.Errorf("publish port %d/%s: container %s has published it: %w", p.HostPort, p.Protocol, other, host.ErrExists)
		}
	}
	if slices.ContainsFunc(others, p.clashes) {
		return p, false, fmt.Errorf("publish port %d/%s: it is there twice: %w", p.HostPort, p.Protocol, host.ErrInvalid)
	}
	if h.held[p.key()] != nil {
		return p, false, nil
	}
	return p, true, h.holdLocked(p)
}

// shares reports whether two containers may have the port.
func (p *Port) shares(o *Port) bool { return p.Group != "" && p.Group == o.Group && p.key() == o.key() }

// chosenLocked is the port that was chosen for the container before, or for
// another of its group; 0 if there was none.
func (h *Host) chosenLocked(id host.ContainerID, p *Port, others []*Port) uint16 {
	same := func(o *Port) bool {
		return o.Protocol == p.Protocol && o.Target == p.Target && o.HostIP == p.HostIP && !slices.ContainsFunc(others, o.clashes)
	}
	if i := slices.IndexFunc(h.state.Ports[id], same); i >= 0 {
		return h.state.Ports[id][i].HostPort
	}
	for _, other := range slices.Sorted(maps.Keys(h.state.Ports)) {
		for _, o := range h.state.Ports[other] {
			if p.Group != "" && o.Group == p.Group && same(o) {
				return o.HostPort
			}
		}
	}
	return 0
}

func (p *Port) setHostIP(text string) error {
	if text == "" {
		return nil
	}
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return fmt.Errorf("publish port on %q: %w: %w", text, err, host.ErrInvalid)
	case ip.Is6():
		return fmt.Errorf("publish port on %s: IPv6 addresses: %w", ip, host.ErrUnsupported)
	case !ip.IsUnspecified():
		p.HostIP = ip
	}
	return nil
}

// holdLocked takes the port on the host, and chooses one for port 0. Nothing
// ever reaches the socket: rules see each packet before.
func (h *Host) holdLocked(p *Port) error {
	address := netip.AddrPortFrom(p.HostIP, p.HostPort)
	if !p.HostIP.IsValid() {
		address = netip.AddrPortFrom(netip.IPv4Unspecified(), p.HostPort)
	}
	var err error
	if p.Protocol == "udp" {
		var c *net.UDPConn
		if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address)); err == nil {
			p.HostPort = uint16(c.LocalAddr().(*net.UDPAddr).Port)
			h.held[p.key()] = c
		}
	} else {
		var l *net.TCPListener
		if l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address)); err == nil {
			p.HostPort = uint16(l.Addr().(*net.TCPAddr).Port)
			h.held[p.key()] = l
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("publish port %d/%s: %s uses it on this host (publish another, or stop it): %w", p.HostPort, p.Protocol, occupant(p.Protocol, p.HostPort), host.ErrExists)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("publish port %s: this host does not have that address: %w", address, host.ErrInvalid)
	case err != nil:
		return fmt.Errorf("publish port %d/%s: %w", p.HostPort, p.Protocol, err)
	}
	return nil
}

// holdAllLocked takes the ports of an earlier Host's containers. What somebody
// has taken meanwhile is found out by the next Publish.
func (h *Host) holdAllLocked() {
	for _, ports := range h.state.Ports {
		for _, p := range ports {
			if h.held[p.key()] == nil {
				_ = h.holdLocked(p)
			}
		}
	}
}

func (h *Host) releaseLocked(key portKey) {
	if socket := h.held[key]; socket != nil {
		socket.Close()
		delete(h.held, key)
	}
}

// forgetFlows makes the kernel decide anew about UDP clients of these ports:
// translation is chosen once a flow, and a client that keeps sending keeps its
// flow alive for ever.
func forgetFlows(ports []*Port) error {
	filter := udpPorts{}
	for _, p := range ports {
		if p.Protocol == "udp" {
			filter[p.HostPort] = true
		}
	}
	if len(filter) == 0 {
		return nil
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, filter)
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("forget flows of published ports: %w", err)
	}
	return nil
}

// udpPorts is a filter of flows by the port their first packet went to.
type udpPorts map[uint16]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (u udpPorts) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return flow.Forward.Protocol == protoUDP && u[flow.Forward.DstPort]
}
