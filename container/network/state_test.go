package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torpor/host"
)

func TestAddresses(t *testing.T) {
	n := &network{Subnet: netip.MustParsePrefix("10.1.2.0/29"), Addresses: map[host.ContainerID]netip.Addr{}}
	seen := map[netip.Addr]bool{n.gateway(): true}
	for i := range 5 { // .2 to .6
		a, err := n.address(host.ContainerID(fmt.Sprint(i)), "")
		if err != nil || seen[a] || !n.Subnet.Contains(a) || a == n.Subnet.Addr() || a == n.broadcast() {
			t.Errorf("container %d gets %s, %v", i, a, err)
		}
		seen[a] = true
	}
	if a, err := n.address("one too many", ""); err == nil {
		t.Errorf("a full network gives %s", a)
	}
	had := n.Addresses["3"]
	delete(n.Addresses, "3")
	if a, err := n.address("3", ""); err != nil || a != had {
		t.Errorf("had %s, again %s, %v", had, a, err)
	}
	for want, kind := range map[string]error{
		"10.1.2.1": host.ErrInvalid, "10.1.2.0": host.ErrInvalid, "10.1.2.7": host.ErrInvalid, "10.9.9.9": host.ErrInvalid,
		"x": host.ErrInvalid, "fd00::1": host.ErrInvalid, n.Addresses["2"].String(): host.ErrExists,
	} {
		if a, err := n.address("new", want); !errors.Is(err, kind) {
			t.Errorf("wanted %s: %s, %v", want, a, err)
		}
	}
}

func TestSubnets(t *testing.T) {
	s := newState()
	taken := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.88.0.0/16"), netip.MustParsePrefix("10.89.1.7/32")}
	for i, want := range []string{"10.89.0.0/24", "10.89.2.0/24"} {
		p, err := s.freeSubnet(taken)
		if err != nil || p.String() != want {
			t.Errorf("got %s, %v; want %s", p, err, want)
		}
		s.Networks[fmt.Sprint(i)] = &network{Subnet: p}
	}
	if p, err := s.freeSubnet([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil {
		t.Errorf("nothing is free, got %s", p)
	}
}

func TestNetworkErrors(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "x_there", Subnets: []string{"10.97.1.0/24"}})
	l.container("x-a-1", "x_there")
	for name, c := range map[string]struct {
		spec  host.NetworkSpec
		kind  error
		words string
	}{
		"external":   {host.NetworkSpec{Name: "x_none", External: true}, host.ErrNotFound, "x_none"},
		"ipv6":       {host.NetworkSpec{Name: "x_six", IPv6: true}, host.ErrUnsupported, "enable_ipv6"},
		"ipv6 range": {host.NetworkSpec{Name: "x_six", Subnets: []string{"fd00::/64"}}, host.ErrUnsupported, "fd00::/64"},
		"nonsense":   {host.NetworkSpec{Name: "x_bad", Subnets: []string{"ten"}}, host.ErrInvalid, "ten"},
		"too small":  {host.NetworkSpec{Name: "x_bad", Subnets: []string{"10.97.2.0/31"}}, host.ErrInvalid, "/31"},
		"overlap":    {host.NetworkSpec{Name: "x_bad", Subnets: []string{"10.97.0.0/16"}}, host.ErrExists, "x_there"},
		"route":      {host.NetworkSpec{Name: "x_bad", Subnets: []string{"192.0.2.128/25"}}, host.ErrExists, "192.0.2.0/24"},
		"in use":     {host.NetworkSpec{Name: "x_there", Subnets: []string{"10.97.5.0/24"}}, host.ErrExists, "1 containers"},
	} {
		l.do(func(h *Host) error {
			if err := h.EnsureNetwork(c.spec); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s: %v", name, err)
			}
			return nil
		})
	}
	l.do(func(h *Host) error {
		for name, a := range map[string]host.NetworkAttachment{
			"none": {Network: "x_none"}, "six": {Network: "x_there", IPv6: "fd00::1"}, "mac": {Network: "x_there", MAC: "ff:ff:ff:ff:ff:ff"},
		} {
			if got, err := h.Reserve("x-b-1", []host.NetworkAttachment{{Network: "x_there"}, a}); err == nil {
				t.Errorf("%s: %v", name, got)
			}
		}
		if _, ok := h.state.Networks["x_there"].Addresses["x-b-1"]; ok {
			t.Error("a failed reservation left an address")
		}
		return nil
	})
	if got := l.host.Networks(); len(got) != 1 {
		t.Errorf("networks %v", got)
	}
	// What nobody uses can change.
	l.do(func(h *Host) error {
		return errors.Join(h.Detach("x-a-1"), h.EnsureNetwork(host.NetworkSpec{Name: "x_there", Subnets: []string{"10.97.5.0/24"}, Internal: true}))
	})
	if n := l.host.state.Networks["x_there"]; n.Subnet.String() != "10.97.5.0/24" || !n.Internal {
		t.Errorf("network %+v", n)
	}
}

func TestStateFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "network.json")
	for content, kind := range map[string]error{
		"": host.ErrCorrupt, "{": host.ErrCorrupt, `{"version":2}`: host.ErrUnsupported, `{"version":1,"networks":{"a":null}}`: host.ErrCorrupt,
		`{"version":1,"networks":{"a":{"subnet":"10.0.0.1/24"}}}`:                                        host.ErrCorrupt,
		`{"version":1,"networks":{"a":{"subnet":"10.0.0.0/24","addresses":{"x":"10.0.1.2"}}}}`:           host.ErrCorrupt,
		`{"version":1,"ports":{"x":[{"protocol":"tcp","host_port":80,"address":"fd00::1","target":1}]}}`: host.ErrCorrupt,
		`{"version":1,"ports":{"x":[null]}}`:                                                             host.ErrCorrupt,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{StateFile: file}); !errors.Is(err, kind) || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"networks":{"a":{"subnet":"10.0.0.0/24","addresses":{"x":"10.0.0.2"},"aliases":{"x":["y"]}}},"ports":{"x":[{"protocol":"tcp","host_ip":"","host_port":80,"address":"10.0.0.2","target":80}]},"names":{"x":["z"]}}`))
	f.Add([]byte(`{"version":1,"networks":{"a":{"subnet":"10.0.0.0/29"}}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := parseState(content)
		if err != nil {
			return
		}
		for _, n := range s.Networks { // what is accepted can be used
			if a, err := n.address("new", ""); err == nil && !n.Subnet.Contains(a) {
				t.Errorf("address %s of %s", a, n.Subnet)
			}
		}
		for _, p := range s.translations() {
			if len(p.keyBytes()) != 8 || len(p.targetBytes()) != 8 {
				t.Errorf("port %+v", p)
			}
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseState(b); err != nil {
			t.Errorf("written %s is not read: %v", b, err)
		}
	})
}

func FuzzServers(f *testing.F) {
	f.Add("nameserver 1.2.3.4\n")
	f.Fuzz(func(t *testing.T, content string) {
		for _, s := range parseServers(content) {
			if _, err := netip.ParseAddr(s); err != nil {
				t.Error(err)
			}
		}
	})
}
