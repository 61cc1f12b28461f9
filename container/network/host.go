package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"torpor/host"
)

// Config says where a Host keeps its things.
type Config struct {
	StateFile string
	Table     string // nftables table; "torpor" unless tests say otherwise
}

// Host is the machine's side of all networks.
type Host struct {
	config Config

	mu    sync.Mutex
	state *state
}

// Attachment is one container on one network.
type Attachment struct {
	Network string
	Address netip.Addr
	Gateway netip.Addr
}

// Open reads what an earlier Host left.
func Open(config Config) (*Host, error) {
	if config.Table == "" {
		config.Table = "torpor"
	}
	s, err := loadState(config.StateFile)
	if err != nil {
		return nil, err
	}
	return &Host{config: config, state: s}, nil
}

// EnsureNetwork makes the network's bridge if it is missing.
func (h *Host) EnsureNetwork(spec host.NetworkSpec) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.state.Networks[spec.Name]
	if n == nil {
		if spec.External {
			return fmt.Errorf("use network %s: it is external and does not exist (make it by a project that defines it): %w", spec.Name, host.ErrNotFound)
		}
		subnet, err := h.chooseSubnet(spec)
		if err != nil {
			return err
		}
		n = &network{Subnet: subnet, Internal: spec.Internal, Addresses: map[host.ContainerID]netip.Addr{}}
		h.state.Networks[spec.Name] = n
		if err := h.state.save(h.config.StateFile); err != nil {
			return err
		}
	}
	if err := ensureBridge(spec.Name, n); err != nil {
		return fmt.Errorf("make network %s: %w", spec.Name, err)
	}
	return h.applyRulesLocked()
}

func (h *Host) chooseSubnet(spec host.NetworkSpec) (netip.Prefix, error) {
	for _, s := range spec.Subnets {
		p, err := netip.ParsePrefix(s)
		if err == nil && p.Addr().Is4() {
			return p.Masked(), nil
		}
	}
	taken, err := hostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	return h.state.freeSubnet(taken)
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

func ensureBridge(name string, n *network) error {
	device := bridge(name)
	link, err := netlink.LinkByName(device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Alias = device, "torpor network "+name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("add bridge %s: %w", device, err)
		}
		link, err = netlink.LinkByName(device)
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", device, err)
	}
	address := &netlink.Addr{IPNet: toIPNet(n.gateway(), n.Subnet.Bits())}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("give %s to bridge %s: %w", address, device, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set bridge %s up: %w", device, err)
	}
	// Published ports answer on 127.0.0.1 too: such packets are translated to a
	// container and must be allowed to leave by the bridge.
	for path, value := range map[string]string{
		"/proc/sys/net/ipv4/ip_forward":                         "1",
		"/proc/sys/net/ipv4/conf/" + device + "/route_localnet": "1",
		"/proc/sys/net/ipv6/conf/" + device + "/disable_ipv6":   "1",
	} {
		if err := os.WriteFile(path, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set %s: %w", path, err)
		}
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
	if link, err := netlink.LinkByName(bridge(name)); err == nil {
		if err := netlink.LinkDel(link); err != nil {
			return fmt.Errorf("remove network %s: %w", name, err)
		}
	}
	delete(h.state.Networks, name)
	return errors.Join(h.state.save(h.config.StateFile), h.applyRulesLocked())
}

// Reserve gives a container its addresses before it exists, so that others can
// be told. Names are those of NetworkSpec.
func (h *Host) Reserve(id host.ContainerID, attachments []host.NetworkAttachment) ([]Attachment, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []Attachment
	for _, a := range attachments {
		n := h.state.Networks[a.Network]
		if n == nil {
			return nil, fmt.Errorf("join network %s: %w", a.Network, host.ErrNotFound)
		}
		address, err := n.address(id, a.IPv4)
		if err != nil {
			return nil, err
		}
		all = append(all, Attachment{Network: a.Network, Address: address, Gateway: n.gateway()})
	}
	return all, h.state.save(h.config.StateFile)
}

// nsName is the name under which ip netns shows a container's namespace.
func nsName(id host.ContainerID) string { return "torpor-" + string(id) }

// NamespacePath is where a container's network namespace is mounted.
func NamespacePath(id host.ContainerID) string { return filepath.Join("/run/netns", nsName(id)) }

// Attach makes the container's namespace and its devices, in the order of its
// attachments, and returns the namespace's path. No attachments: a loopback
// only.
func (h *Host) Attach(id host.ContainerID, attachments []Attachment) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ensureNamespace(nsName(id)); err != nil {
		return "", err
	}
	ns, err := netns.GetFromName(nsName(id))
	if err != nil {
		return "", fmt.Errorf("open namespace of %s: %w", id, err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return "", fmt.Errorf("enter namespace of %s: %w", id, err)
	}
	defer inside.Close()
	if err := setUp(inside, "lo"); err != nil {
		return "", err
	}
	routed := false
	for i, a := range attachments {
		n := h.state.Networks[a.Network]
		if n == nil {
			return "", fmt.Errorf("attach %s to network %s: %w", id, a.Network, host.ErrNotFound)
		}
		if err := attach(inside, ns, id, i, a, n); err != nil {
			return "", fmt.Errorf("attach %s to network %s: %w", id, a.Network, err)
		}
		if !routed && !n.Internal {
			routed = true
			route := &netlink.Route{Gw: net.IP(a.Gateway.AsSlice())}
			if err := inside.RouteReplace(route); err != nil {
				return "", fmt.Errorf("route %s by %s: %w", id, a.Gateway, err)
			}
		}
	}
	return NamespacePath(id), nil
}

// ensureNamespace makes a named network namespace.
func ensureNamespace(name string) error {
	if ns, err := netns.GetFromName(name); err == nil {
		return ns.Close()
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the new namespace
		_ = netns.DeleteNamed(name)
		ns, err := netns.NewNamed(name)
		if err == nil {
			err = ns.Close()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		return fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return nil
}

func setUp(inside *netlink.Handle, device string) error {
	link, err := inside.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find device %s: %w", device, err)
	}
	if err := inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("set device %s up: %w", device, err)
	}
	return nil
}

// attach makes one pair of devices: eth<i> inside, tv-<hash> on the bridge.
func attach(inside *netlink.Handle, ns netns.NsHandle, id host.ContainerID, i int, a Attachment, n *network) error {
	device := fmt.Sprintf("eth%d", i)
	outside := "tv-" + shortHash(fmt.Sprintf("%s/%s", id, a.Network))
	if _, err := inside.LinkByName(device); err != nil {
		if old, err := netlink.LinkByName(outside); err == nil {
			_ = netlink.LinkDel(old) // half made by a process that was killed
		}
		master, err := netlink.LinkByName(bridge(a.Network))
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = outside, master.Attrs().Index
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: device, PeerNamespace: netlink.NsFd(ns)}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("add device pair %s: %w", outside, err)
		}
		if err := netlink.LinkSetUp(pair); err != nil {
			return fmt.Errorf("set device %s up: %w", outside, err)
		}
	}
	link, err := inside.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find device %s: %w", device, err)
	}
	if err := inside.AddrReplace(link, &netlink.Addr{IPNet: toIPNet(a.Address, n.Subnet.Bits())}); err != nil {
		return fmt.Errorf("give address %s: %w", a.Address, err)
	}
	return inside.LinkSetUp(link)
}

// Detach removes the container's namespace, ports and addresses. What is gone
// already is not an error.
func (h *Host) Detach(id host.ContainerID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for name, n := range h.state.Networks {
		if _, ok := n.Addresses[id]; !ok {
			continue
		}
		delete(n.Addresses, id)
		if link, err := netlink.LinkByName("tv-" + shortHash(fmt.Sprintf("%s/%s", id, name))); err == nil {
			errs = append(errs, netlink.LinkDel(link))
		}
	}
	delete(h.state.Ports, id)
	if err := netns.DeleteNamed(nsName(id)); err != nil && !errors.Is(err, syscall.ENOENT) && !strings.Contains(err.Error(), "no such file") {
		errs = append(errs, fmt.Errorf("remove network namespace: %w", err))
	}
	errs = append(errs, h.state.save(h.config.StateFile), h.applyRulesLocked())
	return errors.Join(errs...)
}

// Networks lists the networks that exist, sorted.
func (h *Host) Networks() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name := range h.state.Networks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
