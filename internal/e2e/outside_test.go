package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"torpor/internal/netlab"
	"torpor/kernel/netns"
)

// outside is another machine, on a wire: what it sends to containers is
// forwarded.
type outside struct {
	t    *testing.T
	path string // of its namespace
}

// The wire has addresses of RFC 5737: two of this machine, one of the other.
const (
	outsideWire   = "outside0"
	thisAddress   = "198.51.100.1"
	secondAddress = "198.51.100.3"
	otherAddress  = "198.51.100.2"
)

func (m *machine) outsidePath() string { return filepath.Join(m.dir, "outside") }

func (m *machine) outside() *outside {
	m.t.Helper()
	o := &outside{m.t, m.outsidePath()}
	check := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	check(netns.Ensure(o.path))
	m.t.Cleanup(func() {
		if link, err := netlink.LinkByName(outsideWire); err == nil {
			check(netlink.LinkDel(link)) // a socket may keep the namespace
		}
		check(netns.Remove(o.path))
	})
	there, err := os.Open(o.path)
	check(err)
	defer there.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = outsideWire
	check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: outsideWire, PeerNamespace: netlink.NsFd(there.Fd())}))
	check(bringUp(outsideWire, thisAddress, secondAddress))
	check(netns.Do(o.path, func() error {
		if err := errors.Join(bringUp("lo"), bringUp(outsideWire, otherAddress)); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(thisAddress)})
	}))
	return o
}

func bringUp(device string, addresses ...string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// sysctl sets what is below net in the other machine.
func (o *outside) sysctl(name, value string) {
	o.t.Helper()
	err := netns.Do(o.path, func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

// dial connects from the other machine.
func (o *outside) dial(address string) *lineClient {
	o.t.Helper()
	return dialLines(o.t, address, func(dial func() error) error { return netns.Do(o.path, dial) })
}

// dialFrom is dial from a port of the caller's choice.
func (o *outside) dialFrom(port int, address string) *lineClient {
	o.t.Helper()
	c := &lineClient{t: o.t}
	err := netns.Do(o.path, func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, KeepAlive: -1, Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		}}
		c.conn, err = d.Dial("tcp4", address)
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return c.opened()
}

// lineClient is a connection to testdata/lines.py.
type lineClient struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	asked  int
	slow   int // answers that took so long that the kernel may have sent the line again
}

// slowAnswer is less than the kernel waits for an acknowledgement (TCP_RTO_MIN is
// 200 ms).
const slowAnswer = 150 * time.Millisecond

// dialLines connects when somebody listens; in is where.
func dialLines(t *testing.T, address string, in func(func() error) error) *lineClient {
	t.Helper()
	c := &lineClient{t: t}
	var err error
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err = in(func() (err error) {
			c.conn, err = (&net.Dialer{KeepAlive: -1, Timeout: patience}).Dial("tcp4", address)
			return err
		})
		if err == nil {
			return c.opened()
		}
		if time.Now().After(deadline) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
}

// lines connects from this machine.
func (m *machine) lines(address string) *lineClient {
	m.t.Helper()
	return dialLines(m.t, address, func(dial func() error) error { return dial() })
}

func (c *lineClient) opened() *lineClient {
	c.t.Cleanup(func() { c.conn.Close() })
	c.reader = bufio.NewReaderSize(c.conn, 64)
	return c
}

// try sends a line and wants it back with its number.
func (c *lineClient) try() error {
	c.asked++
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	begun := time.Now()
	if _, err := fmt.Fprintf(c.conn, "from %s\n", c.conn.LocalAddr()); err != nil {
		return err
	}
	line, err := c.reader.ReadString('\n')
	if time.Since(begun) > slowAnswer {
		c.slow++
	}
	if want := fmt.Sprintf("%d from %s\n", c.asked, c.conn.LocalAddr()); err == nil && line != want {
		err = fmt.Errorf("got %q, want %q", line, want)
	}
	return err
}

func (c *lineClient) ask() {
	c.t.Helper()
	if err := c.try(); err != nil {
		c.t.Fatalf("client %s, request %d: %v", c.conn.LocalAddr(), c.asked, err)
	}
}

// unrepeated fails the test if the client had to send something twice, on a
// machine that is not too busy.
func (c *lineClient) unrepeated() {
	c.t.Helper()
	c.control(func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || int(info.Total_retrans) > c.slow {
			c.t.Errorf("client %s sent %d segments again: %v", c.conn.LocalAddr(), info.Total_retrans, err)
		}
	})
}

func (c *lineClient) control(f func(fd int)) {
	c.t.Helper()
	raw, err := c.conn.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// captures are of what goes over some wires.
type captures struct {
	t   *testing.T
	all map[string]*netlab.Capture
}

// capture begins to look at the wires of containers, and of another machine.
func (m *machine) capture(o *outside, services ...service) *captures {
	m.t.Helper()
	c := &captures{m.t, map[string]*netlab.Capture{}}
	see := func(name, path, device string) {
		m.t.Helper()
		one, err := netlab.NewCapture(path, device)
		if err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(func() { one.Close() })
		c.all[name] = one
	}
	see("outside", o.path, outsideWire)
	for _, s := range services {
		see(s.ID, namespace(s), "eth0")
	}
	return c
}

// ends returns who ended a connection, by a reset or not, on some wire.
func (c *captures) ends() (ends []netlab.Segment) {
	c.t.Helper()
	time.Sleep(20 * time.Millisecond) // what is under way
	for name, one := range c.all {
		n, some := one.Seen()
		if n == 0 {
			c.t.Errorf("nothing was seen on the wire of %s", name)
		}
		ends = append(ends, some...)
	}
	return ends
}

// quiet fails the test if something was reset or ended.
func (c *captures) quiet() {
	c.t.Helper()
	if ends := c.ends(); len(ends) > 0 {
		c.t.Errorf("%d segments end a connection: %v", len(ends), ends[:min(len(ends), 5)])
	}
}

// namespace is the path of a container's network namespace; its name ends with a
// hash of the state directory.
func namespace(s service) string {
	if paths, _ := filepath.Glob("/run/netns/torpor-" + s.ID + "-*"); len(paths) == 1 {
		return paths[0]
	}
	return "no namespace of " + s.ID
}

// sockets counts those of TCP in a container's namespace that are connected.
func sockets(t *testing.T, s service) int {
	t.Helper()
	n := 0
	err := netns.Do(namespace(s), func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(b)) {
				if fields := strings.Fields(line); len(fields) > 3 && fields[3] == "01" {
					n++
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitSuspended waits until a service sleeps with n connections suspended.
func (m *machine) awaitSuspended(name string, n int) service {
	m.t.Helper()
	var s service
	m.eventually(fmt.Sprintf("%s sleeps with %d suspended", name, n), func() error {
		if s = m.ps()[name]; s.State != "asleep" || s.ConnectionsSuspended != n {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
	if s.ConnectionsHeld != n || s.ConnectionsParkedWhy != "" {
		m.t.Errorf("%d connections are suspended of %+v", n, s)
	}
	if n := sockets(m.t, s); n > 0 {
		m.t.Errorf("the kernel has %d connections of %s", n, name)
	}
	return s
}

// addressOf is a published port as clients outside see it.
func addressOf(ip, port string) string {
	return netip.MustParseAddrPort(ip + ":" + port).String()
}

// datagrams is a client that sends its lines as datagrams, from a port; 0 is any.
func (o *outside) datagrams(port int, address string) *lineClient {
	o.t.Helper()
	c := &lineClient{t: o.t}
	err := netns.Do(o.path, func() (err error) {
		c.conn, err = (&net.Dialer{LocalAddr: &net.UDPAddr{Port: port}}).Dial("udp4", address)
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return c.opened()
}
