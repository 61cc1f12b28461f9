package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"torpor/host"
)

// upstream is a name server outside, which knows example.test only.
func upstream(t *testing.T) string {
	t.Helper()
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections, err := net.Listen("tcp4", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		if q.Question[0].Name == "example.test." && q.Question[0].Qtype == dns.TypeA {
			reply.Answer = []dns.RR{&dns.A{Hdr: header(q.Question[0]), A: net.IPv4(203, 0, 113, 7)}}
		} else {
			reply.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(reply)
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: connections, Handler: handler}} {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.ActivateAndServe()
		}()
		t.Cleanup(func() {
			if s.PacketConn != nil {
				s.PacketConn.Close()
			} else {
				s.Listener.Close()
			}
			<-ended
		})
	}
	return packets.LocalAddr().String()
}

// query asks a server from a namespace.
func (l *lab) query(path, protocol, server, name string, kind uint16) (*dns.Msg, error) {
	l.t.Helper()
	c, err := l.connect(path, protocol+"4", server, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	conn := &dns.Conn{Conn: c}
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)); err != nil {
		return nil, err
	}
	return conn.ReadMsg()
}

func TestResolver(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "n_front"})
	l.network(host.NetworkSpec{Name: "n_back", Internal: true})
	web, webNS := l.attach("n-web-1", []host.NetworkAttachment{{Network: "n_front", Aliases: []string{"www"}}})
	api, apiNS := l.attach("n-api-1", []host.NetworkAttachment{{Network: "n_front"}, {Network: "n_back", Aliases: []string{"backend"}}})
	db, dbNS := l.attach("n-db-1", []host.NetworkAttachment{{Network: "n_back"}})
	twin, _ := l.attach("n-db-2", []host.NetworkAttachment{{Network: "n_back"}})
	l.do(func(h *Host) error {
		return errors.Join(h.SetNames("n-web-1", "web", "n-web-1"), h.SetNames("n-api-1", "API"), h.SetNames("n-db-1", "db"), h.SetNames("n-db-2", "db"))
	})
	// A container publishes port 53, on every address of the host.
	l.publish("n-web-1", web[0].Address, host.PortSpec{Protocol: "udp", Target: 53, Published: 53}, host.PortSpec{Protocol: "tcp", Target: 53, Published: 53})
	r := NewResolver(l.host, upstream(t))
	for range 2 {
		l.in(l.here, r.Sync)
	}
	front, back := web[0].Gateway.String()+":53", db[0].Gateway.String()+":53"
	both := []string{db[0].Address.String(), twin[0].Address.String()}
	slices.SortFunc(both, func(a, b string) int { return netip.MustParseAddr(a).Compare(netip.MustParseAddr(b)) })
	reversed := func(a netip.Addr) string {
		name, err := dns.ReverseAddr(a.String())
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, c := range []struct {
		who, from, server, name string
		kind                    uint16
		want                    string
	}{
		{"web", webNS, front, "api", dns.TypeA, api[0].Address.String()},
		{"web", webNS, front, "WEB", dns.TypeA, web[0].Address.String()},
		{"web", webNS, front, "www.n_front", dns.TypeA, web[0].Address.String()},
		{"web", webNS, front, "api", dns.TypeAAAA, ""},
		{"web", webNS, front, "db", dns.TypeA, "NXDOMAIN"},      // on a network that it is not on
		{"web", webNS, front, "backend", dns.TypeA, "NXDOMAIN"}, // an alias there
		{"web", webNS, front, "example.test", dns.TypeA, "203.0.113.7"},
		{"web", webNS, front, "other.test", dns.TypeA, "NXDOMAIN"},
		{"web", webNS, front, reversed(api[0].Address), dns.TypePTR, "API.n_front."},
		{"web", webNS, front, reversed(db[0].Address), dns.TypePTR, "NXDOMAIN"},
		{"api", apiNS, front, "db", dns.TypeA, strings.Join(both, " ")},
		{"api", apiNS, back, "example.test", dns.TypeA, "203.0.113.7"},
		{"db", dbNS, back, "backend", dns.TypeA, api[1].Address.String()},
		{"db", dbNS, back, "web", dns.TypeA, "NXDOMAIN"},
		{"db", dbNS, back, "example.test", dns.TypeA, "NXDOMAIN"}, // no way out
		{"host", l.here, front, "www", dns.TypeA, web[0].Address.String()},
		{"host", l.here, front, "example.test", dns.TypeA, "NXDOMAIN"},
	} {
		for _, protocol := range []string{"udp", "tcp"} {
			reply, err := l.query(c.from, protocol, c.server, c.name, c.kind)
			if err != nil {
				t.Errorf("%s asks for %s by %s: %v", c.who, c.name, protocol, err)
				continue
			}
			got := words(reply)
			if c.name == "db" && len(strings.Fields(got)) > 1 { // of several, another one comes first each time
				fields := strings.Fields(got)
				slices.Sort(fields)
				got = strings.Join(fields, " ")
			}
			if got != c.want {
				t.Errorf("%s asks for %s %s by %s: %q, want %q", c.who, dns.TypeToString[c.kind], c.name, protocol, got, c.want)
			}
		}
	}
	l.do(func(h *Host) error {
		return errors.Join(h.Detach("n-db-2"), h.Detach("n-db-1"), h.Detach("n-api-1"), h.RemoveNetwork("n_back"))
	})
	l.in(l.here, r.Sync)
	if len(r.servers) != 1 {
		t.Errorf("listens on %d gateways", len(r.servers))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// Nobody answers: at once, so that the next server is asked.
	if reply, err := l.query(webNS, "udp", front, "web", dns.TypeA); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after close: %v, %v", reply, err)
	}
}

// words is what an answer says.
func words(m *dns.Msg) string {
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	var all []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, rr.A.String())
		case *dns.PTR:
			all = append(all, rr.Ptr)
		}
	}
	return strings.Join(all, " ")
}

// TestStranger asks from a machine beside the host.
func TestStranger(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "s"})
	web, _ := l.container("s-web-1", "s")
	r := NewResolver(l.host, upstream(t))
	l.in(l.here, r.Sync)
	defer r.Close()
	l.in(l.here, func() error {
		question := new(dns.Msg).SetQuestion("example.test.", dns.TypeA)
		if got := words(r.reply(remoteAddr, question, "udp")); got != "REFUSED" {
			t.Errorf("a stranger is told %q", got)
		}
		return nil
	})
	if _, err := l.connect(l.remote, "tcp4", web[0].Gateway.String()+":53", 300*time.Millisecond); err == nil {
		t.Error("a stranger reaches the resolver")
	}
}

func TestPeers(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "e_a", Subnets: []string{"10.98.1.0/24"}})
	l.network(host.NetworkSpec{Name: "e_b", Subnets: []string{"10.98.2.0/24"}})
	l.attach("e-1", []host.NetworkAttachment{{Network: "e_a", IPv4: "10.98.1.11", Aliases: []string{"one", "first"}}})
	l.attach("e-2", []host.NetworkAttachment{{Network: "e_a", IPv4: "10.98.1.12"}, {Network: "e_b", IPv4: "10.98.2.12", Aliases: []string{"two-b"}}})
	l.attach("e-3", []host.NetworkAttachment{{Network: "e_b", IPv4: "10.98.2.13"}})
	l.do(func(h *Host) error {
		return errors.Join(h.SetNames("e-1", "one"), h.SetNames("e-2", "two"), h.SetNames("e-3", "three"))
	})
	l.open() // names are kept
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(strings.Repeat("# old and much longer\n", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteHosts(file, l.host.Peers("e-2")); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(file)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"10.98.1.11\tone first\n10.98.1.12\ttwo\n10.98.2.12\ttwo two-b\n10.98.2.13\tthree\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestNameservers(t *testing.T) {
	in := Attachment{Network: "in", Gateway: netip.MustParseAddr("10.0.1.1"), Internal: true}
	out := Attachment{Network: "out", Gateway: netip.MustParseAddr("10.0.2.1")}
	if got := Nameservers([]Attachment{in}); !slices.Equal(got, []string{"10.0.1.1"}) {
		t.Errorf("internal: %v", got)
	}
	if got := Nameservers([]Attachment{in, out}); got[0] != "10.0.2.1" || len(got) > 3 {
		t.Errorf("both: %v", got)
	}
	if got := Nameservers(nil); got != nil {
		t.Errorf("none: %v", got)
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := WriteResolv(file, []string{"10.0.2.1", "9.9.9.9"}, []string{"a.test", "b.test"}, []string{"ndots:0"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if want := "nameserver 10.0.2.1\nnameserver 9.9.9.9\nsearch a.test b.test\noptions ndots:0\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	servers := parseServers("# x\nnameserver 127.0.0.53\nnameserver 9.9.9.9 # y\nnameserver bad\nnameserver\noptions x\nnameserver fe80::1%eth0\n")
	if !slices.Equal(servers, []string{"127.0.0.53", "9.9.9.9", "fe80::1%eth0"}) {
		t.Errorf("servers %v", servers)
	}
}

// TestSharedName gives a name that several containers have in turn, and only
// those that are attached; hosts files do not have it.
func TestSharedName(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "many"})
	want := map[netip.Addr]bool{}
	var first netip.Addr
	for _, id := range []host.ContainerID{"many-web-1", "many-web-2", "many-web-3"} {
		at, _ := l.container(id, "many")
		l.do(func(h *Host) error { return h.SetNames(id, "web", string(id)) })
		want[at[0].Address], first = true, at[0].Address
	}
	firsts := map[netip.Addr]int{}
	for range 6 {
		found, _ := l.host.lookup(first, "web")
		if len(found) != 3 || !want[found[0]] || !want[found[1]] || !want[found[2]] {
			t.Fatalf("web is %v, want %v", found, want)
		}
		firsts[found[0]]++
	}
	if len(firsts) != 3 {
		t.Errorf("answered first were %v", firsts)
	}
	l.do(func(h *Host) error { return h.Disconnect("many-web-3") })
	if found, _ := l.host.lookup(first, "web"); len(found) != 2 || slices.Contains(found, first) {
		t.Errorf("with one stopped web is %v", found)
	}
	for _, e := range l.host.Peers("many-web-1") {
		if slices.Contains(e.Names, "web") || len(e.Names) != 1 {
			t.Errorf("hosts file has %v", e)
		}
	}
}
