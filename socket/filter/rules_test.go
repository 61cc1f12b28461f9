package filter

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/internal/kerneltest"
	"torpor/socket/segment"
)

func (l *lab) nft(args ...string) string {
	l.Helper()
	var out []byte
	l.in(l.here, func() (err error) {
		if out, err = exec.Command("nft", args...).CombinedOutput(); err != nil {
			err = fmt.Errorf("nft %v: %w: %s", args, err, out)
		}
		return err
	})
	return string(out)
}

// TestTablesOfOthersAreLeftAlone compares what nft lists.
func TestTablesOfOthersAreLeftAlone(t *testing.T) {
	kerneltest.Require(t, kerneltest.Nft)
	l := newLab(t)
	l.nft("add table inet mine; add chain inet mine input { type filter hook input priority 0; policy drop; }; " +
		"add rule inet mine input ct state established accept; add rule inet mine input tcp dport { 8080, 9090 } accept; " +
		"add table ip6 mine; add set ip6 mine addresses { type ipv6_addr; elements = { 2001:db8::99 }; }")
	before := l.nft("list", "ruleset")
	f, err := Open(l.config(l.bed()))
	l.check(err)
	during := l.nft("list", "ruleset")
	if !strings.HasPrefix(during, before) || !strings.Contains(during, table) {
		t.Errorf("with the filter: %s\nbefore: %s", during, before)
	}
	l.check(f.Close())
	if got := l.nft("list", "ruleset"); got != during {
		t.Errorf("with the filter closed: %s\nopen: %s", got, during)
	}
	f, err = Open(l.config(l.bed()))
	l.check(err)
	l.check(f.Remove())
	if got := l.nft("list", "ruleset"); got != before {
		t.Errorf("afterwards: %s\nbefore: %s", got, before)
	}
	l.check(Remove(l.here, table)) // is gone already
}

// TestUsersFilterComesFirst: what it drops wakes nobody.
func TestUsersFilterComesFirst(t *testing.T) {
	kerneltest.Require(t, kerneltest.Nft)
	l := newLab(t)
	b := l.bed()
	f, _ := l.open(l.config(b))
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
	l.sleep(b, served)
	l.nft("add table ip mine; add chain ip mine input { type filter hook input priority 0; }; add rule ip mine input tcp dport 8080 drop")
	before := f.Counters().Packets
	_, err := peer.Write([]byte("let me in"))
	l.check(err)
	time.Sleep(700 * time.Millisecond)
	if n := f.Counters(); n.Packets != before || len(b.woken()) != 0 {
		t.Errorf("%d packets more", n.Packets-before)
	}
	l.nft("delete table ip mine")
	l.expect(l.restored(b), "let me in")
}

// TestGuardedAddresses leaves other ports and addresses to the kernel.
func TestGuardedAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		guard []netip.AddrPort
		seen  int // of the three connections
	}{
		"everything":  {[]netip.AddrPort{{}}, 3},
		"ports":       {[]netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 8081), netip.AddrPortFrom(netip.Addr{}, 9999)}, 2},
		"IPv4":        {[]netip.AddrPort{netip.MustParseAddrPort(here4 + ":8081")}, 1},
		"IPv6":        {[]netip.AddrPort{netip.MustParseAddrPort("[" + here6 + "]:8081")}, 1},
		"both":        {[]netip.AddrPort{netip.MustParseAddrPort("[" + here6 + "]:8081"), netip.MustParseAddrPort(here4 + ":8081")}, 2},
		"IPv4-mapped": {[]netip.AddrPort{netip.MustParseAddrPort("[::ffff:" + here4 + "]:8081")}, 1},
		"another":     {[]netip.AddrPort{netip.MustParseAddrPort("192.0.2.99:8081")}, 0},
		"many":        {manyGuards(), 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			config := l.config(l.bed())
			config.Guard = c.guard
			f, _ := l.open(config)
			seen := 0
			for _, address := range []string{here4 + ":8080", here4 + ":8081", "[" + here6 + "]:8081"} {
				listener := l.listen("[::]:" + address[strings.LastIndex(address, ":")+1:])
				before := f.Counters().Packets
				l.connect(listener, address)
				listener.Close()
				if f.Counters().Packets > before {
					seen++
				}
			}
			if seen != c.seen {
				t.Errorf("packets of %d connections came to the queue, want %d", seen, c.seen)
			}
		})
	}
}

func manyGuards() []netip.AddrPort {
	var all []netip.AddrPort
	for i := range 3000 {
		all = append(all, netip.AddrPortFrom(netip.Addr{}, uint16(8081+i)), netip.AddrPortFrom(netip.MustParseAddr(here4), uint16(20000+i)))
	}
	return all
}

// TestFragmentsAreJoined sends a segment of IPv6 in two fragments, which the
// kernel by itself would join behind the filter.
func TestFragmentsAreJoined(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	l.open(l.config(b))
	served, _ := l.connect(l.listen(fmt.Sprintf("[::]:%d", port)), fmt.Sprintf("[%s]:%d", here6, port))
	capture := l.capture()
	s := l.sleep(b, served)
	a := segment.Answer{Seq: s.ReceiveNext, Ack: s.SendNext, Window: 500}
	a.Local, a.Remote = s.Remote, s.Local
	whole := forge(a.AppendTo(nil), false, byte(segment.ACK|segment.PSH), "0123456789abcdef0123456789abcdef")
	forger := l.forger()
	tcp := whole[40:]
	const cut = 24
	for i, part := range [][]byte{tcp[:cut], tcp[cut:]} {
		p := append([]byte{}, whole[:40]...)
		p[5], p[6] = byte(8+len(part)), 44
		offset := byte(cut * i)
		if i == 0 {
			offset |= 1 // more follow
		}
		p = append(append(p, 6, 0, 0, offset, 0, 0, 0, 9), part...)
		l.check(forger.sender.Send(p, s.Local.Addr(), 0))
	}
	l.expect(l.restored(b), "0123456789abcdef0123456789abcdef")
	l.quiet(capture)
}

func TestOpenRefuses(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	good := l.config(b)
	for name, change := range map[string]func(*Config){
		"no table":        func(c *Config) { c.Table = "" },
		"no handler":      func(c *Config) { c.Handler = nil },
		"nothing":         func(c *Config) { c.Guard = nil },
		"no port":         func(c *Config) { c.Guard = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(here4), 0)} },
		"no namespace":    func(c *Config) { c.Namespace = filepath.Join(t.TempDir(), "none") },
		"too many queues": func(c *Config) { c.QueueBase = 65535; c.Queues = 2 },
		"below zero":      func(c *Config) { c.Queues = -1 },
	} {
		c := good
		change(&c)
		if f, err := Open(c); err == nil {
			t.Errorf("%s: opened", name)
			f.Close()
		}
	}
	f, err := Open(good)
	l.check(err)
	if _, err := Open(good); !errors.Is(err, syscall.EPERM) {
		t.Errorf("open with a queue that is taken: %v", err)
	}
	l.check(f.Remove())
	l.check(f.Close())
	l.check(f.Run(t.Context())) // ends at once
	if n := f.Counters(); n.Packets != 0 {
		t.Errorf("counters %+v", n)
	}
}

// TestManyNamespaces opens a filter in each of 200.
func TestManyNamespaces(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	l := &lab{TB: t}
	dir := t.TempDir()
	b := &bed{}
	const count = 200
	var filters []*Filter
	var stops []func()
	start := time.Now()
	for i := range count {
		l.here = filepath.Join(dir, fmt.Sprint(i))
		l.namespace(l.here)
		f, stop := l.open(l.config(b))
		filters, stops = append(filters, f), append(stops, stop)
	}
	t.Logf("%d filters open in %v", count, time.Since(start))
	for i, f := range filters { // each sees its own packets
		l.check(f.namespace.Do(func() error {
			if err := up("lo"); err != nil {
				return err
			}
			if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				c.Close()
				return errors.New("somebody listens")
			}
			return nil
		}))
		if n := f.Counters(); n.Packets == 0 || n.Packets != n.Passed {
			t.Errorf("filter %d: %+v", i, n)
		}
	}
	for i, stop := range stops {
		l.check(Remove(filepath.Join(dir, fmt.Sprint(i)), table))
		stop()
	}
}

// TestQueuesShareConnections looks at the kernel's own count of each queue.
func TestQueuesShareConnections(t *testing.T) {
	l := newLab(t)
	config := l.config(l.bed())
	config.Queues = 4
	l.open(config)
	for name, address := range dialAddresses {
		listener := l.listen(fmt.Sprintf("[::]:%d", port))
		for range 40 {
			served, peer := l.connect(listener, address)
			served.Close()
			peer.Close()
		}
		listener.Close()
		l.in(l.here, func() error {
			queues, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
			for line := range strings.Lines(string(queues)) {
				if fields := strings.Fields(line); len(fields) != 9 || fields[7] == "0" {
					t.Errorf("%s: a queue without packets: %s", name, line)
				}
			}
			if n := strings.Count(string(queues), "\n"); n != 4 {
				t.Errorf("%d queues", n)
			}
			return err
		})
	}
}

// TestTimeWait opens a connection again that this end has closed: neither the
// socket in TIME_WAIT nor the half-open one is taken for an open one.
func TestTimeWait(t *testing.T) {
	l := newLab(t)
	config := l.config(l.bed())
	config.FastPath = true
	f, _ := l.open(config)
	capture := l.capture()
	listener := l.listen(fmt.Sprintf("[::]:%d", port))
	served, peer := l.connect(listener, dialAddresses["IPv4"])
	local := peer.LocalAddr()
	l.check(served.Close())
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	l.check(peer.Close())
	time.Sleep(50 * time.Millisecond)
	l.in(l.remote, func() error {
		c, err := (&net.Dialer{LocalAddr: local, Timeout: 10 * time.Second}).Dial("tcp4", dialAddresses["IPv4"])
		if err == nil {
			l.check(c.Close())
		}
		return err
	})
	if n := capture.count(segment.RST); n != 0 {
		t.Errorf("%d resets", n)
	}
	if n := f.Counters(); n.Passed != n.Packets || n.Passed == 0 {
		t.Errorf("counters %+v", n)
	}
}

// TestOwnNamespace opens the filter of the thread that it is called on.
func TestOwnNamespace(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	config := l.config(b)
	config.Namespace = ""
	l.in(l.here, func() error {
		before, err := os.Readlink("/proc/thread-self/ns/net")
		l.check(err)
		l.open(config)
		after, err := os.Readlink("/proc/thread-self/ns/net")
		if before != after {
			t.Errorf("the thread was in %s and is in %s", before, after)
		}
		return err
	})
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), dialAddresses["IPv4"])
	l.sleep(b, served)
	l.exchangeAsleep(b, peer)
	l.unrepeated(peer)
	l.in(l.here, func() error { return Remove("", table) })
}
