// Package netlab makes two network namespaces with a wire between them, for
// tests and benchmarks of what crosses a network. It needs root.
package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"torpor/kernel/netns"
)

// Lab is two machines. Close it.
type Lab struct {
	Here, There string // paths of their namespaces
}

// Device is the name of the wire's ends.
const Device = "wire0"

// Addresses on the wire, those for documentation (RFC 5737, RFC 3849).
var (
	Here4  = netip.MustParsePrefix("192.0.2.1/24")
	There4 = netip.MustParsePrefix("192.0.2.2/24")
	Here6  = netip.MustParsePrefix("2001:db8::1/64")
	There6 = netip.MustParsePrefix("2001:db8::2/64")
)

// New makes the machines; their namespaces are mounted in dir.
func New(dir string) (*Lab, error) {
	l := &Lab{filepath.Join(dir, "here"), filepath.Join(dir, "there")}
	for _, path := range []string{l.Here, l.There} {
		if err := netns.Ensure(path); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if err := l.wire(); err != nil {
		return nil, errors.Join(fmt.Errorf("wire namespaces: %w", err), l.Close())
	}
	return l, nil
}

// Close removes the namespaces, with all that is in them, as soon as the last
// socket is closed.
func (l *Lab) Close() error { return errors.Join(netns.Remove(l.Here), netns.Remove(l.There)) }

func (l *Lab) wire() error {
	there, err := os.Open(l.There)
	if err != nil {
		return err
	}
	defer there.Close()
	err = netns.Do(l.Here, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = Device
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: Device, PeerNamespace: netlink.NsFd(there.Fd())}
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return up(Here4, Here6)
	})
	if err != nil {
		return err
	}
	if err := netns.Do(l.There, func() error { return up(There4, There6) }); err != nil {
		return err
	}
	return netns.Do(l.Here, awaitCarrier)
}

func up(addrs ...netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := AddAddress(a); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(Device)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// AddAddress gives the machine of the calling thread one more address on the
// wire.
func AddAddress(a netip.Prefix) error {
	link, err := netlink.LinkByName(Device)
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
	if a.Addr().Is6() {
		const noDuplicateDetection = 0x02 // IFA_F_NODAD
		address.Flags = noDuplicateDetection
	}
	return netlink.AddrReplace(link, address)
}

// AddRoute sends packets of the calling thread's machine for other addresses
// over the wire.
func AddRoute(to netip.Prefix) error {
	link, err := netlink.LinkByName(Device)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}})
}

// awaitCarrier waits until the kernel has noticed that both ends are up.
func awaitCarrier() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(Device)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("device %s is %s", Device, link.Attrs().OperState)
		}
	}
}
