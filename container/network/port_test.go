package network

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"torpor/host"
)

func TestPortErrors(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "q"})
	a, _ := l.container("q-a-1", "q")
	b, _ := l.container("q-b-1", "q")
	l.serveTCP(l.here, "127.0.0.1:7001") // of this very process
	l.serveUDP(l.here, ":7002")
	kept := l.publish("q-a-1", a[0].Address, host.PortSpec{Target: 80, Published: 8080}, host.PortSpec{Protocol: "udp", Target: 80, Published: 8080})
	before := l.run("nft", "list", "table", "ip", "torpor_test")
	self := fmt.Sprintf("(process %d)", os.Getpid())
	for name, c := range map[string]struct {
		specs []host.PortSpec
		kind  error
		words string
	}{
		"container":   {[]host.PortSpec{{Target: 80, Published: 8080}}, host.ErrExists, "container q-a-1 has published it"},
		"one address": {[]host.PortSpec{{Target: 80, Published: 8080, HostIP: "127.0.0.1"}}, host.ErrExists, "q-a-1"},
		"program":     {[]host.PortSpec{{Target: 80, Published: 7001}}, host.ErrExists, self},
		"udp program": {[]host.PortSpec{{Protocol: "udp", Target: 80, Published: 7002}}, host.ErrExists, self},
		"twice":       {[]host.PortSpec{{Target: 80, Published: 81}, {Target: 82, Published: 81}}, host.ErrInvalid, "twice"},
		"ipv6":        {[]host.PortSpec{{Target: 80, Published: 81, HostIP: "::1"}}, host.ErrUnsupported, "::1"},
		"elsewhere":   {[]host.PortSpec{{Target: 80, Published: 81, HostIP: remoteAddr.String()}}, host.ErrInvalid, remoteAddr.String()},
		"nonsense":    {[]host.PortSpec{{Target: 80, Published: 81, HostIP: "here"}}, host.ErrInvalid, "here"},
		"sctp":        {[]host.PortSpec{{Target: 80, Published: 81, Protocol: "sctp"}}, host.ErrUnsupported, "sctp"},
		"behind":      {[]host.PortSpec{{Target: 80, Published: 83}, {Target: 80, Published: 7001}}, host.ErrExists, "7001"},
	} {
		l.do(func(h *Host) error {
			ports, err := h.Publish("q-b-1", "", b[0].Address, c.specs)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s: %v, %v", name, ports, err)
			}
			return nil
		})
	}
	if after := l.run("nft", "list", "table", "ip", "torpor_test"); after != before || len(l.host.held) != len(kept) {
		t.Errorf("errors left something: held %v\n%s", l.host.held, after)
	}
	// Nobody else can take what is published.
	l.in(l.here, func() error {
		if c, err := net.Listen("tcp4", ":8080"); err == nil {
			c.Close()
			t.Error("another program took a published port")
		}
		return nil
	})
	// Replacing ports gives back what is not wanted any more.
	l.publish("q-a-1", a[0].Address, host.PortSpec{Target: 80, Published: 8081})
	l.publish("q-b-1", b[0].Address, host.PortSpec{Target: 80, Published: 8080}, host.PortSpec{Target: 81, Published: 8082, HostIP: hostAddr.String()})
}

// TestManyPorts publishes a range, as for WebRTC.
func TestManyPorts(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "m"})
	a, ns := l.container("m-a-1", "m")
	var specs []host.PortSpec
	for i := range 1500 {
		specs = append(specs, host.PortSpec{Protocol: "udp", Target: uint16(20000 + i), Published: uint16(20000 + i)})
	}
	start := time.Now()
	l.publish("m-a-1", a[0].Address, specs...)
	t.Logf("%d ports in %s", len(specs), time.Since(start))
	l.serveUDP(ns, ":21499")
	if got := l.seen(l.remote, "udp", hostAddr.String()+":21499"); got != remoteAddr.String() {
		t.Errorf("seen as %s", got)
	}
}

// TestUDPFlowMoves has a client that keeps sending from one port while the
// service is published, and then moves to another container.
func TestUDPFlowMoves(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "u"})
	a, aNS := l.container("u-a-1", "u")
	b, bNS := l.container("u-b-1", "u")
	for _, ns := range []string{aNS, bNS} {
		l.serveNamed(ns, ":53", ns)
	}
	conn, err := l.connect(l.remote, "udp4", hostAddr.String()+":5300", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("nobody there yet"))
	spec := host.PortSpec{Protocol: "udp", Target: 53, Published: 5300}
	l.publish("u-a-1", a[0].Address, spec)
	if got := l.retry(conn); got != aNS {
		t.Errorf("first answered by %q", got)
	}
	l.do(func(h *Host) error { return h.Detach("u-a-1") })
	l.publish("u-b-1", b[0].Address, spec)
	if got := l.retry(conn); got != bNS {
		t.Errorf("then answered by %q", got)
	}
}

// serveNamed answers datagrams with a name.
func (l *lab) serveNamed(path, address, name string) {
	l.t.Helper()
	var conn net.PacketConn
	l.in(path, func() error {
		var err error
		conn, err = net.ListenPacket("udp4", address)
		return err
	})
	ended := make(chan struct{})
	l.t.Cleanup(func() { conn.Close(); <-ended })
	go func() {
		defer close(ended)
		buf := make([]byte, 100)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			fmt.Fprintln(packetWriter{conn, from}, name)
		}
	}()
}

// retry sends until somebody answers.
func (l *lab) retry(conn net.Conn) string {
	l.t.Helper()
	for range 50 {
		_, _ = conn.Write([]byte("hello"))
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			return strings.TrimSpace(line)
		}
	}
	return "nobody"
}
