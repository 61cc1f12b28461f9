package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"torpor/host"
	"torpor/kernel/netns"
)

// Attachment is one container on one network.
type Attachment struct {
	Network  string
	Address  netip.Addr
	Gateway  netip.Addr
	MAC      string `json:",omitempty"` // "": follows from the address
	Internal bool   `json:",omitempty"` // of no use for published ports
}

// Reserve gives a container its addresses before it exists, so that others can
// be told, in place of those it had. Names are those of NetworkSpec. On an
// error nothing has changed.
func (h *Host) Reserve(id host.ContainerID, attachments []host.NetworkAttachment) ([]Attachment, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	undo := h.forgetLocked(id, attachments)
	var all []Attachment
	for _, a := range attachments {
		attachment, err := h.reserveLocked(id, a)
		if err != nil {
			undo()
			return nil, fmt.Errorf("join %s to network %s: %w", id, a.Network, err)
		}
		all = append(all, attachment)
	}
	if err := h.saveLocked(); err != nil {
		undo()
		return nil, err
	}
	return all, nil
}

// forgetLocked drops the container's addresses on networks that are not wanted
// any more. The returned function restores all it had.
func (h *Host) forgetLocked(id host.ContainerID, wanted []host.NetworkAttachment) func() {
	keep := map[string]bool{}
	for _, a := range wanted {
		keep[a.Network] = true
	}
	var steps []func()
	for name, n := range h.state.Networks {
		address, had := n.Addresses[id]
		aliases := n.Aliases[id]
		steps = append(steps, func() {
			delete(n.Addresses, id)
			delete(n.Aliases, id)
			if had {
				n.Addresses[id], n.Aliases[id] = address, aliases
			}
		})
		if !keep[name] {
			delete(n.Addresses, id)
			delete(n.Aliases, id)
		}
	}
	return func() {
		for _, step := range steps {
			step()
		}
	}
}

func (h *Host) reserveLocked(id host.ContainerID, a host.NetworkAttachment) (Attachment, error) {
	n := h.state.Networks[a.Network]
	if n == nil {
		return Attachment{}, host.ErrNotFound
	}
	if a.IPv6 != "" {
		return Attachment{}, fmt.Errorf("ipv6_address: %w", host.ErrUnsupported)
	}
	if a.MAC != "" {
		if mac, err := net.ParseMAC(a.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return Attachment{}, fmt.Errorf("mac_address %q: not the address of one device: %w", a.MAC, host.ErrInvalid)
		}
	}
	address, err := n.address(id, a.IPv4)
	if err != nil {
		return Attachment{}, err
	}
	n.Aliases[id] = a.Aliases
	return Attachment{Network: a.Network, Address: address, Gateway: n.gateway(), MAC: a.MAC, Internal: n.Internal}, nil
}

// Attach makes the container's namespace and its devices, in the order of its
// attachments, and returns the namespace's path. No attachments: a loopback
// only. What is there already stays, connections included.
func (h *Host) Attach(id host.ContainerID, attachments []Attachment) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	path := h.NamespacePath(id)
	if err := netns.Ensure(path); err != nil {
		return "", err
	}
	ns, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	if err := netns.Do(path, prepareNamespace); err != nil {
		return "", fmt.Errorf("prepare network of %s: %w", id, err)
	}
	for i, a := range attachments {
		if err := h.attachLocked(id, ns, i, a); err != nil {
			return "", fmt.Errorf("attach %s to network %s: %w", id, a.Network, err)
		}
	}
	if err := netns.Do(path, func() error { return h.routeLocked(attachments) }); err != nil {
		return "", fmt.Errorf("attach %s: %w", id, err)
	}
	if h.applied {
		return path, nil
	}
	return path, h.applyRulesLocked()
}

// prepareNamespace runs in a container's namespace. Devices that are made later
// get no IPv6 addresses: there is no one to talk to, and its chatter would wake
// a sleeper. The loopback keeps ::1.
func prepareNamespace() error {
	if err := setSysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// attachLocked makes one pair of devices: eth<i> inside, the other end on the
// bridge.
func (h *Host) attachLocked(id host.ContainerID, ns *os.File, i int, a Attachment) error {
	n := h.state.Networks[a.Network]
	if n == nil {
		return host.ErrNotFound
	}
	if n.Addresses[id] != a.Address {
		return fmt.Errorf("address %s is not reserved for it: %w", a.Address, host.ErrInvalid)
	}
	if err := h.ensureBridgeLocked(a.Network); err != nil {
		return err
	}
	inner, outer := fmt.Sprintf("eth%d", i), h.veth(id, a.Network)
	if !deviceThere(ns.Name(), inner) {
		if err := h.addVeth(ns, inner, outer, a); err != nil {
			return err
		}
	}
	if err := h.plugIn(outer, a.Network); err != nil {
		return err
	}
	return netns.Do(ns.Name(), func() error {
		link, err := netlink.LinkByName(inner)
		if err != nil {
			return fmt.Errorf("find device %s: %w", inner, err)
		}
		if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: toIPNet(a.Address, n.Subnet.Bits())}); err != nil {
			return fmt.Errorf("give address %s: %w", a.Address, err)
		}
		return netlink.LinkSetUp(link)
	})
}

func deviceThere(namespace, device string) bool {
	return netns.Do(namespace, func() error {
		_, err := netlink.LinkByName(device)
		return err
	}) == nil
}

func (h *Host) addVeth(ns *os.File, inner, outer string, a Attachment) error {
	if old, err := netlink.LinkByName(outer); err == nil {
		if err := netlink.LinkDel(old); err != nil { // of a namespace that has gone
			return fmt.Errorf("remove old device %s: %w", outer, err)
		}
	}
	mac := hardwareAddress(a.Address)
	if a.MAC != "" {
		var err error
		if mac, err = net.ParseMAC(a.MAC); err != nil {
			return fmt.Errorf("read hardware address: %w", err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = outer
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: inner, PeerNamespace: netlink.NsFd(ns.Fd()), PeerHardwareAddr: mac}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add device pair %s: %w", outer, err)
	}
	return setSysctl("ipv6/conf/"+outer+"/disable_ipv6", "1")
}

// plugIn puts the host's end of a pair on its bridge.
func (h *Host) plugIn(outer, network string) error {
	link, err := netlink.LinkByName(outer)
	if err != nil {
		return fmt.Errorf("find device %s: %w", outer, err)
	}
	master, err := netlink.LinkByName(h.bridge(network))
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	if link.Attrs().MasterIndex != master.Attrs().Index {
		if err := netlink.LinkSetMaster(link, master); err != nil {
			return fmt.Errorf("put device %s on bridge: %w", outer, err)
		}
		// A container may ask for a port that it has published itself.
		if err := netlink.LinkSetHairpin(link, true); err != nil {
			return fmt.Errorf("set device %s to answer itself: %w", outer, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// routeLocked runs in the container's namespace: its way out is by the first
// network that is not internal.
func (h *Host) routeLocked(attachments []Attachment) error {
	for i, a := range attachments {
		if h.state.Networks[a.Network].Internal {
			continue
		}
		link, err := netlink.LinkByName(fmt.Sprintf("eth%d", i))
		if err != nil {
			return fmt.Errorf("find device eth%d: %w", i, err)
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: toIPNet(netip.IPv4Unspecified(), 0), Gw: net.IP(a.Gateway.AsSlice())}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route by %s: %w", a.Gateway, err)
		}
		return nil
	}
	return nil
}

// Disconnect removes the container's namespace and lets its published ports go.
// It keeps its addresses, for the next Attach. What is gone already is not an
// error.
func (h *Host) Disconnect(id host.ContainerID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone, err := h.disconnectLocked(id)
	return errors.Join(err, h.saveLocked(), h.applyRulesLocked(), forgetFlows(gone))
}

// disconnectLocked returns the ports that are not published any more when the
// rules have been applied.
func (h *Host) disconnectLocked(id host.ContainerID) ([]*Port, error) {
	var errs []error
	for name, n := range h.state.Networks {
		if _, ok := n.Addresses[id]; !ok {
			continue
		}
		// The namespace may live on for a while, by a socket; its address must not.
		if link, err := netlink.LinkByName(h.veth(id, name)); err == nil {
			errs = append(errs, netlink.LinkDel(link))
		}
	}
	gone := h.unpublishLocked(id)
	return gone, errors.Join(append(errs, netns.Remove(h.NamespacePath(id)))...)
}

// Detach is Disconnect, and gives the container's addresses back.
func (h *Host) Detach(id host.ContainerID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone, err := h.disconnectLocked(id)
	h.forgetLocked(id, nil)
	delete(h.state.Names, id)
	return errors.Join(err, h.saveLocked(), h.applyRulesLocked(), forgetFlows(gone))
}
