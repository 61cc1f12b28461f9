package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"torpor/host"
)

// EnsureNetwork makes the network if it is missing, and changes it to the spec
// otherwise. Errors: host.ErrNotFound for an external one that is not there,
// host.ErrExists when its subnet is in use, host.ErrUnsupported for IPv6.
func (h *Host) EnsureNetwork(spec host.NetworkSpec) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.state.Networks[spec.Name]
	switch {
	case n == nil && spec.External:
		return fmt.Errorf("use network %s: it is external and does not exist (make it by a project that defines it): %w", spec.Name, host.ErrNotFound)
	case spec.External:
	case spec.IPv6:
		return fmt.Errorf("make network %s: enable_ipv6: %w", spec.Name, host.ErrUnsupported)
	case n == nil:
		if err := h.addNetworkLocked(spec); err != nil {
			return fmt.Errorf("make network %s: %w", spec.Name, err)
		}
	default:
		if err := h.changeNetworkLocked(n, spec); err != nil {
			return fmt.Errorf("change network %s: %w", spec.Name, err)
		}
	}
	if err := h.ensureBridgeLocked(spec.Name); err != nil {
		return err
	}
	return h.applyRulesLocked()
}

func (h *Host) addNetworkLocked(spec host.NetworkSpec) error {
	subnet, err := h.state.chooseSubnet(spec)
	if err != nil {
		return err
	}
	h.state.Networks[spec.Name] = &network{Subnet: subnet, Internal: spec.Internal}
	h.state.fill()
	return h.saveLocked()
}

// changeNetworkLocked brings a network to its spec. Its subnet can only change
// while nobody has an address of it.
func (h *Host) changeNetworkLocked(n *network, spec host.NetworkSpec) error {
	if len(spec.Subnets) > 0 {
		want, err := wantedSubnet(spec)
		if err != nil {
			return err
		}
		if want != n.Subnet {
			if len(n.Addresses) > 0 {
				return fmt.Errorf("subnet %s to %s: %d containers have addresses of it (torpor down first): %w", n.Subnet, want, len(n.Addresses), host.ErrExists)
			}
			if err := h.removeBridge(spec.Name); err != nil {
				return err
			}
			delete(h.state.Networks, spec.Name)
			return h.addNetworkLocked(spec)
		}
	}
	if n.Internal == spec.Internal {
		return nil
	}
	n.Internal = spec.Internal
	return h.saveLocked()
}

// ensureBridgeLocked makes the device of a network that is in the state.
func (h *Host) ensureBridgeLocked(name string) error {
	n, device := h.state.Networks[name], h.bridge(name)
	if n == nil {
		return fmt.Errorf("make network %s: %w", name, host.ErrNotFound)
	}
	link, err := netlink.LinkByName(device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		link, err = addBridge(device, name, n.gateway())
	}
	if err != nil {
		return fmt.Errorf("make network %s: bridge %s: %w", name, device, err)
	}
	address := &netlink.Addr{IPNet: toIPNet(n.gateway(), n.Subnet.Bits())}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("make network %s: give %s to bridge %s: %w", name, address, device, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("make network %s: set bridge %s up: %w", name, device, err)
	}
	if err := setSysctl("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	// Published ports answer on 127.0.0.1 too: such packets are translated to a
	// container and must be allowed to leave by the bridge. That packets do not
	// come in the same way is up to a rule.
	return setSysctl("ipv4/conf/"+device+"/route_localnet", "1")
}

// addBridge makes the device; its own hardware address would change with every
// container that comes or goes, and containers remember it.
func addBridge(device, network string, gateway netip.Addr) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Alias = device, "torpor network "+network
	attrs.HardwareAddr = hardwareAddress(gateway)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	if err := setSysctl("ipv6/conf/"+device+"/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	return netlink.LinkByName(device)
}

// setSysctl writes below /proc/sys/net unless it is so already. A kernel
// without IPv6 has not all of them.
func setSysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || string(old) == value+"\n" {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}

// RemoveNetwork removes a network that no container is on any more; with
// containers it stays. One that is not known is not an error.
func (h *Host) RemoveNetwork(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.state.Networks[name]
	if n == nil || len(n.Addresses) > 0 {
		return nil
	}
	if err := h.removeBridge(name); err != nil {
		return fmt.Errorf("remove network %s: %w", name, err)
	}
	delete(h.state.Networks, name)
	return errors.Join(h.saveLocked(), h.applyRulesLocked())
}

func (h *Host) removeBridge(name string) error {
	link, err := netlink.LinkByName(h.bridge(name))
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
