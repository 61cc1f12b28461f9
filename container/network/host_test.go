package network

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"torpor/host"
	"torpor/internal/kerneltest"
)

// TestPublishedPort reaches one container from everywhere.
func TestPublishedPort(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "p_default"})
	l.network(host.NetworkSpec{Name: "p_other"})
	web, webNS := l.container("p-web-1", "p_default")
	peer, peerNS := l.container("p-peer-1", "p_default")
	far, farNS := l.container("p-far-1", "p_other")
	l.serveTCP(webNS, ":80")
	l.serveUDP(webNS, ":53")
	l.publish("p-web-1", web[0].Address, host.PortSpec{Protocol: "tcp", Target: 80, Published: 8080}, host.PortSpec{Protocol: "udp", Target: 53, Published: 5353})
	address, gateway := web[0].Address.String(), web[0].Gateway.String()
	t.Log(l.run("nft", "list", "table", "ip", "torpor_test"))
	for _, protocol := range []struct{ name, port, inside string }{{"tcp", ":8080", ":80"}, {"udp", ":5353", ":53"}} {
		for _, c := range []struct{ who, from, to, want string }{
			{"remote machine", l.remote, hostAddr.String() + protocol.port, remoteAddr.String()},
			{"host by its address", l.here, hostAddr.String() + protocol.port, hostAddr.String()},
			{"host by loopback", l.here, "127.0.0.1" + protocol.port, gateway},
			{"host by another loopback", l.here, "127.0.0.2" + protocol.port, gateway},
			{"host by the gateway's address", l.here, gateway + protocol.port, gateway},
			{"host directly", l.here, address + protocol.inside, gateway},
			{"container itself by the host", webNS, hostAddr.String() + protocol.port, gateway},
			{"container itself by the gateway", webNS, gateway + protocol.port, gateway},
			{"peer by the host", peerNS, hostAddr.String() + protocol.port, gateway},
			{"peer directly", peerNS, address + protocol.inside, peer[0].Address.String()},
			{"other network by the host", farNS, hostAddr.String() + protocol.port, far[0].Address.String()},
			{"other network by its gateway", farNS, far[0].Gateway.String() + protocol.port, far[0].Address.String()},
		} {
			t.Run(protocol.name+" "+c.who, func(t *testing.T) {
				sub := *l
				sub.t = t
				if got := sub.seen(c.from, protocol.name, c.to); got != c.want {
					t.Errorf("seen as %s, want %s", got, c.want)
				}
			})
		}
	}
}

// TestClosed is what nobody may reach.
func TestClosed(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "c_one"})
	l.network(host.NetworkSpec{Name: "c_two"})
	l.network(host.NetworkSpec{Name: "c_internal", Internal: true})
	one, oneNS := l.container("c-one-1", "c_one")
	_, twoNS := l.container("c-two-1", "c_two")
	hidden, hiddenNS := l.container("c-hidden-1", "c_internal")
	_, friendNS := l.container("c-friend-1", "c_internal", "c_two")
	l.serveTCP(oneNS, ":80")
	l.serveTCP(oneNS, ":81")
	l.serveTCP(hiddenNS, ":80")
	l.serveTCP(l.remote, ":80")
	l.serveTCP(l.here, "127.0.0.1:7000")
	l.publish("c-one-1", one[0].Address, host.PortSpec{Protocol: "tcp", Target: 81, Published: 8081, HostIP: "127.0.0.1"})
	// A neighbour that knows the way to everything.
	l.in(l.remote, func() error {
		link, err := netlink.LinkByName("wire0")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: toIPNet(pool.Addr(), pool.Bits()), Gw: hostAddr.AsSlice()})
	})
	l.sendLoopbackAway(oneNS, "eth0", one[0].Gateway)
	l.sendLoopbackAway(l.remote, "wire0", hostAddr)
	l.unreachable(l.remote, "tcp", one[0].Address.String()+":80") // not published
	l.unreachable(l.remote, "tcp", hostAddr.String()+":8081")     // published on the loopback only
	l.unreachable(l.remote, "tcp", "127.0.0.1:8081")
	l.unreachable(l.remote, "tcp", hidden[0].Address.String()+":80")
	l.unreachable(twoNS, "tcp", one[0].Address.String()+":80")
	l.unreachable(twoNS, "tcp", hidden[0].Address.String()+":80")
	l.unreachable(oneNS, "tcp", "127.0.0.1:7000") // the host's own loopback
	l.unreachable(oneNS, "tcp", "127.0.0.1:8081")
	l.unreachable(hiddenNS, "tcp", remoteAddr.String()+":80")
	// And what they may.
	if got := l.seen(l.here, "tcp", "127.0.0.1:8081"); got != one[0].Gateway.String() {
		t.Errorf("the host is seen as %s", got)
	}
	if got := l.seen(oneNS, "tcp", remoteAddr.String()+":80"); got != hostAddr.String() {
		t.Errorf("a container is seen outside as %s, want the host's %s", got, hostAddr)
	}
	if got := l.seen(friendNS, "tcp", remoteAddr.String()+":80"); got != hostAddr.String() {
		t.Errorf("a container that is also on an internal network is seen outside as %s", got)
	}
	l.seen(friendNS, "tcp", hidden[0].Address.String()+":80")
	l.seen(l.here, "tcp", one[0].Address.String()+":80")
}

// sendLoopbackAway makes a namespace send packets to 127.0.0.1 by a device.
func (l *lab) sendLoopbackAway(path, device string, gateway netip.Addr) {
	l.t.Helper()
	l.in(path, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(
			setSysctl("ipv4/conf/"+device+"/route_localnet", "1"),
			netlink.AddrDel(lo, &netlink.Addr{IPNet: toIPNet(netip.MustParseAddr("127.0.0.1"), 8)}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: toIPNet(netip.MustParseAddr("127.0.0.1"), 32), Gw: gateway.AsSlice()}))
	})
}

// TestReopen kills the host's process, in effect, and finds all as it was, with
// a connection open over it.
func TestReopen(t *testing.T) {
	l := newLab(t)
	spec := host.NetworkSpec{Name: "r_default"}
	l.network(spec)
	web, webNS := l.container("r-web-1", "r_default")
	l.serveTCP(webNS, ":80")
	ports := l.publish("r-web-1", web[0].Address, host.PortSpec{Protocol: "tcp", Target: 80})
	address := fmt.Sprintf("%s:%d", hostAddr, ports[0].HostPort)
	conn, err := l.connect(l.remote, "tcp4", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	before := l.picture()
	for _, again := range []func(h *Host) error{
		func(h *Host) error { return h.Restore() },
		func(h *Host) error {
			if err := h.EnsureNetwork(spec); err != nil {
				return err
			}
			same, err := h.Reserve("r-web-1", []host.NetworkAttachment{{Network: "r_default"}})
			if diff := cmp.Diff(web, same, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("attachments changed:\n%s", diff)
			}
			if err == nil {
				_, err = h.Attach("r-web-1", same)
			}
			if err != nil {
				return err
			}
			more, err := h.Publish("r-web-1", "", web[0].Address, []host.PortSpec{{Protocol: "tcp", Target: 80}})
			if err == nil && *more[0] != *ports[0] {
				t.Errorf("port %s became %s", ports[0], more[0])
			}
			return err
		},
	} {
		l.open()
		l.do(again)
		if diff := cmp.Diff(before, l.picture()); diff != "" {
			t.Errorf("something changed:\n%s", diff)
		}
		fmt.Fprintln(conn, "still there")
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if line, err := lines.ReadString('\n'); err != nil || line != "still there\n" {
			t.Fatalf("open connection: %q, %v", line, err)
		}
		if got := l.seen(l.remote, "tcp", address); got != remoteAddr.String() {
			t.Errorf("seen as %s", got)
		}
	}
	// Somebody flushes all rules; the machine loses its devices.
	l.run("nft", "flush", "ruleset")
	l.do(func(h *Host) error { return h.Restore() })
	if got := l.seen(l.remote, "tcp", address); got != remoteAddr.String() {
		t.Errorf("after a flush seen as %s", got)
	}
	l.run("ip", "link", "del", l.host.bridge("r_default"))
	l.do(func(h *Host) error {
		_, err := h.Attach("r-web-1", web)
		return err
	})
	if got := l.seen(l.remote, "tcp", address); got != remoteAddr.String() {
		t.Errorf("after the bridge was lost seen as %s", got)
	}
}

// picture is the kernel's side of the host's networks.
func (l *lab) picture() string {
	return l.run("nft", "list", "ruleset") + l.run("ip", "-4", "-o", "addr") + l.run("ip", "route") + l.run("ip", "-o", "link")
}

// TestRemoval leaves nothing.
func TestRemoval(t *testing.T) {
	l := newLab(t)
	before := l.picture()
	l.network(host.NetworkSpec{Name: "gone"})
	a, _ := l.container("gone-a-1", "gone")
	l.container("gone-b-1", "gone")
	l.publish("gone-a-1", a[0].Address, host.PortSpec{Protocol: "tcp", Target: 80, Published: 8080}, host.PortSpec{Protocol: "udp", Target: 80})
	l.do(func(h *Host) error { return h.RemoveNetwork("gone") })
	if got := l.host.Networks(); len(got) != 1 {
		t.Errorf("networks %v: one with containers was removed", got)
	}
	for range 2 { // again changes nothing
		l.do(func(h *Host) error {
			return errors.Join(h.Disconnect("gone-a-1"), h.Detach("gone-a-1"), h.Detach("gone-b-1"), h.RemoveNetwork("gone"))
		})
	}
	if diff := cmp.Diff(before, l.picture()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
	entries, err := os.ReadDir(l.config.NamespaceDir)
	if err != nil || len(entries) > 0 {
		t.Errorf("namespaces left: %v, %v", entries, err)
	}
	if len(l.host.held) > 0 {
		t.Errorf("ports still held: %v", l.host.held)
	}
	s, err := loadState(l.config.StateFile)
	if err != nil || len(s.Networks)+len(s.Ports)+len(s.Names) > 0 {
		t.Errorf("state left: %+v, %v", s, err)
	}
}

// TestDisconnect is a container that is stopped and started again.
func TestDisconnect(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "d"})
	first, _ := l.container("d-a-1", "d")
	l.publish("d-a-1", first[0].Address, host.PortSpec{Protocol: "tcp", Target: 80, Published: 8080})
	l.do(func(h *Host) error { return h.Disconnect("d-a-1") })
	other, _ := l.container("d-b-1", "d")
	l.publish("d-b-1", other[0].Address, host.PortSpec{Protocol: "tcp", Target: 80, Published: 8080})
	l.do(func(h *Host) error {
		_, err := h.Attach("d-a-1", first)
		return err
	})
	again, _ := l.container("d-a-1", "d")
	if again[0] != first[0] {
		t.Errorf("was %v, became %v", first[0], again[0])
	}
}

// TestForeignRules meets a firewall that drops by policy, as docker and ufw set
// it up.
func TestForeignRules(t *testing.T) {
	l := newLab(t)
	kerneltest.Require(t, kerneltest.Program("iptables"))
	l.run("iptables", "-P", "FORWARD", "DROP")
	l.run("iptables", "-P", "INPUT", "DROP")
	l.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
	l.run("nft", "add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }; add rule inet fw f ct state invalid drop")
	l.run("nft", "add table inet open; add chain inet open f { type filter hook forward priority 0; policy accept; }")
	before := l.run("nft", "list", "ruleset")
	l.network(host.NetworkSpec{Name: "f"})
	web, webNS := l.container("f-web-1", "f")
	l.serveTCP(webNS, ":80")
	l.serveTCP(l.remote, ":80")
	l.serveUDP(l.here, fmt.Sprintf("%s:%d", web[0].Gateway, resolverPort))
	l.serveUDP(l.here, web[0].Gateway.String()+":54")
	l.publish("f-web-1", web[0].Address, host.PortSpec{Protocol: "tcp", Target: 80, Published: 8080})
	t.Log(l.run("iptables-save"))
	if got := l.seen(l.remote, "tcp", hostAddr.String()+":8080"); got != remoteAddr.String() {
		t.Errorf("seen as %s", got)
	}
	l.seen(webNS, "tcp", remoteAddr.String()+":80")
	l.seen(webNS, "udp", web[0].Gateway.String()+":53")
	l.unreachable(webNS, "udp", web[0].Gateway.String()+":54")
	rules := l.run("nft", "list", "ruleset")
	if n := strings.Count(rules, "torpor table torpor_test"); n != 6 {
		t.Errorf("%d marked rules, want 2 in each of 3 chains:\n%s", n, rules)
	}
	l.open()
	l.do(func(h *Host) error { return h.Restore() })
	if diff := cmp.Diff(rules, l.run("nft", "list", "ruleset")); diff != "" {
		t.Errorf("changed by doing it again:\n%s", diff)
	}
	l.do(func(h *Host) error { return errors.Join(h.Detach("f-web-1"), h.RemoveNetwork("f")) })
	if diff := cmp.Diff(before, l.run("nft", "list", "ruleset")); diff != "" {
		t.Errorf("left in others' tables:\n%s", diff)
	}
}

// TestTwoHosts shares a machine, and names, between two daemons.
func TestTwoHosts(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "same"})
	first, firstNS := l.container("same-a-1", "same")
	one := l.host
	l.config.Table, l.config.StateFile = "torpor_other", l.config.StateFile+"2"
	l.host = nil
	l.open()
	l.network(host.NetworkSpec{Name: "same"})
	second, secondNS := l.container("same-a-1", "same")
	if first[0].Gateway == second[0].Gateway || firstNS == secondNS {
		t.Errorf("both use %v and %s", first[0], firstNS)
	}
	l.serveTCP(firstNS, ":80")
	l.in(l.here, func() error {
		_, err := one.Publish("same-a-1", "", first[0].Address, []host.PortSpec{{Protocol: "tcp", Target: 80, Published: 8080}})
		return err
	})
	l.in(l.here, func() error {
		_, err := l.host.Publish("same-a-1", "", second[0].Address, []host.PortSpec{{Protocol: "tcp", Target: 80, Published: 8080}})
		if !errors.Is(err, host.ErrExists) {
			t.Errorf("publish what the other has: %v", err)
		}
		return nil
	})
	l.do(func(h *Host) error { return errors.Join(h.Detach("same-a-1"), h.RemoveNetwork("same")) })
	if got := l.seen(l.remote, "tcp", hostAddr.String()+":8080"); got != remoteAddr.String() {
		t.Errorf("seen as %s", got)
	}
}

// TestDevices looks at what a container sees.
func TestDevices(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "v_a", Subnets: []string{"10.99.1.0/24"}})
	l.network(host.NetworkSpec{Name: "v_b", Subnets: []string{"10.99.2.0/29"}})
	attachments, ns := l.attach("v-web-1", []host.NetworkAttachment{
		{Network: "v_a", IPv4: "10.99.1.77", MAC: "02:00:00:00:00:07"}, {Network: "v_b"}})
	_, none := l.container("v-none-1")
	l.in(ns, func() error {
		for i, a := range attachments {
			link, err := netlink.LinkByName(fmt.Sprintf("eth%d", i))
			if err != nil {
				return err
			}
			addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
			if err != nil || len(addresses) != 1 || addresses[0].IP.String() != a.Address.String() {
				t.Errorf("eth%d has %v, %v; want %s only", i, addresses, err, a.Address)
			}
			mac := link.Attrs().HardwareAddr.String()
			if want := hardwareAddress(a.Address).String(); a.MAC == "" && mac != want || a.MAC != "" && mac != a.MAC {
				t.Errorf("eth%d has %s", i, mac)
			}
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		if err != nil || len(routes) != 3 {
			t.Errorf("routes %v, %v; want two networks and one way out", routes, err)
		}
		return nil
	})
	l.in(none, func() error {
		links, err := netlink.LinkList()
		if err != nil || len(links) != 1 {
			t.Errorf("a container without network has %v, %v", links, err)
		}
		return err
	})
}
