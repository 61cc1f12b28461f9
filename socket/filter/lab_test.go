package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/internal/netlab"
	"torpor/kernel/netns"
	"torpor/socket"
	"torpor/socket/segment"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// lab is a network namespace with the filter, another for peers, and a wire
// between them.
type lab struct {
	testing.TB
	here, remote string // paths of the namespaces
}

// Addresses on the wire, of RFC 5737 and RFC 3849.
const (
	here4, remote4 = "192.0.2.1", "192.0.2.2"
	here6, remote6 = "2001:db8::1", "2001:db8::2"
	table          = "torpor_filter_test"
	port           = 8080
)

func newLab(t testing.TB) *lab {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	dir := t.TempDir()
	l := &lab{t, filepath.Join(dir, "here"), filepath.Join(dir, "remote")}
	l.namespace(l.here)
	l.namespace(l.remote)
	other, err := os.Open(l.remote)
	l.check(err)
	defer other.Close()
	l.in(l.here, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "wire0"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "wire0", PeerNamespace: netlink.NsFd(other.Fd())})
	})
	l.in(l.here, func() error { return up("wire0", here4+"/24", here6+"/64") })
	l.in(l.remote, func() error { return up("wire0", remote4+"/24", remote6+"/64") })
	l.in(l.here, awaitCarrier)
	return l
}

func (l *lab) namespace(path string) {
	l.Helper()
	l.check(netns.Ensure(path))
	l.Cleanup(func() {
		if err := netns.Remove(path); err != nil {
			l.Error(err)
		}
	})
}

func up(device string, addresses ...string) error {
	for _, name := range []string{"lo", device} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, text := range addresses {
			a, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if name == device {
				if err := netlink.AddrReplace(link, a); err != nil {
					return err
				}
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	return nil
}

func awaitCarrier() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName("wire0")
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("device is %s", link.Attrs().OperState)
		}
	}
}

func (l *lab) check(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) in(path string, f func() error) {
	l.Helper()
	l.check(netns.Do(path, f))
}

// config guards the port on every address.
func (l *lab) config(h Handler) Config {
	return Config{Namespace: l.here, Table: table, Guard: []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, port)}, QueueBase: 40, Handler: h}
}

// open opens and runs a filter; the function stops it as the death of its owner
// does.
func (l *lab) open(c Config) (*Filter, func()) {
	l.Helper()
	f, err := Open(c)
	l.check(err)
	c.Handler.(*bed).filter = f
	done := make(chan error, 1)
	go func() { done <- f.Run(context.Background()) }()
	stop := sync.OnceFunc(func() {
		if err := errors.Join(f.Close(), <-done); err != nil {
			l.Error(err)
		}
	})
	l.Cleanup(stop)
	return f, stop
}

// listen listens in the filter's namespace.
func (l *lab) listen(address string) *net.TCPListener {
	l.Helper()
	var listener net.Listener
	l.in(l.here, func() (err error) {
		var c net.ListenConfig
		c.SetMultipathTCP(false) // has no TCP_REPAIR
		network := "tcp"
		if netip.MustParseAddrPort(address).Addr().Is4() {
			network = "tcp4"
		}
		listener, err = c.Listen(context.Background(), network, address)
		return err
	})
	l.Cleanup(func() { listener.Close() })
	return listener.(*net.TCPListener)
}

// connect makes a connection and returns both ends.
func (l *lab) connect(listener *net.TCPListener, address string) (served, peer *net.TCPConn) {
	l.Helper()
	l.in(l.remote, func() error {
		c, err := (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}).Dial("tcp", address)
		if err == nil {
			peer = c.(*net.TCPConn)
			l.Cleanup(func() { peer.Close() })
		}
		return err
	})
	l.check(listener.SetDeadline(time.Now().Add(10 * time.Second)))
	served, err := listener.AcceptTCP()
	l.check(err)
	l.Cleanup(func() { served.Close() })
	l.exchange(served, peer, "hello")
	l.exchange(peer, served, "welcome")
	return served, peer
}

// exchange sends text over a connection.
func (l *lab) exchange(from, to net.Conn, text string) {
	l.Helper()
	_, err := io.WriteString(from, text)
	l.check(err)
	l.expect(to, text)
}

func (l *lab) expect(c net.Conn, text string) {
	l.Helper()
	l.check(c.SetReadDeadline(time.Now().Add(20 * time.Second)))
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		l.Fatalf("read %q: %v, want %q", b, err, text)
	}
	l.check(c.SetReadDeadline(time.Time{}))
}

// bed is a Handler that keeps connections.
type bed struct {
	filter *Filter // that was opened last

	mu      sync.Mutex
	asleep  map[socket.Key]*socket.Spec
	awake   chan *net.TCPConn
	wakes   []segment.Reason
	windows []socket.Window
	refuse  error // what Wake says
}

func (l *lab) bed() *bed {
	b := &bed{asleep: map[socket.Key]*socket.Spec{}, awake: make(chan *net.TCPConn, 1000)}
	l.Cleanup(func() {
		close(b.awake)
		for c := range b.awake {
			c.Close()
		}
	})
	return b
}

// sleep suspends a connection, when its peer has acknowledged everything.
func (l *lab) sleep(b *bed, c *net.TCPConn) *socket.Spec {
	l.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var s *socket.Spec
		err := b.filter.Still(func() (err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if s, err = suspend(l.here, c); err == nil {
				b.asleep[s.Key] = s
			}
			return err
		})
		if !errors.Is(err, host.ErrRefused) || time.Now().After(deadline) {
			l.check(err)
			return s
		}
	}
}

func (b *bed) Find(k socket.Key) (*socket.Spec, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.asleep[k]
	return s, ok
}

func (b *bed) Wake(k socket.Key, why segment.Reason) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return b.refuse
	}
	if b.asleep[k] == nil {
		return nil // by the test, meanwhile
	}
	c, err := restore(b.asleep[k])
	if err != nil {
		return err
	}
	delete(b.asleep, k)
	b.wakes = append(b.wakes, why)
	b.awake <- c
	return nil
}

func (b *bed) Update(k socket.Key, w socket.Window) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := *b.asleep[k]
	changed.Window = w
	b.asleep[k] = &changed
	b.windows = append(b.windows, w)
}

func (b *bed) woken() []segment.Reason {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]segment.Reason{}, b.wakes...)
}

// restored waits for a connection that Wake has made.
func (l *lab) restored(b *bed) *net.TCPConn {
	l.Helper()
	select {
	case c := <-b.awake:
		l.Cleanup(func() { c.Close() })
		return c
	case <-time.After(20 * time.Second):
		b.mu.Lock()
		defer b.mu.Unlock()
		for k, s := range b.asleep {
			l.Logf("asleep: %v, next %d, window %+v, %d unread", k, s.ReceiveNext, s.Window, len(s.Unread))
		}
		l.Fatalf("nobody wakes: %+v", b.filter.Counters())
		return nil
	}
}

// capture sees what goes over the wire.
type capture struct {
	file *os.File
	done chan struct{}

	mu       sync.Mutex
	segments []segment.Segment
	others   int // packets that are not TCP
}

func (l *lab) capture() *capture {
	l.Helper()
	c := &capture{done: make(chan struct{})}
	l.in(l.here, func() error {
		const all = uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		c.file = os.NewFile(uintptr(fd), "capture")
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		device, err := net.InterfaceByName("wire0")
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index})
	})
	go c.run()
	l.Cleanup(func() { c.file.Close(); <-c.done })
	return c
}

func (c *capture) run() {
	defer close(c.done)
	b := make([]byte, 1<<17)
	for {
		n, err := c.file.Read(b)
		if errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil {
			return
		}
		s, err := segment.Parse(b[:n], n)
		c.mu.Lock()
		if err != nil {
			c.others++
		} else {
			c.segments = append(c.segments, s)
		}
		c.mu.Unlock()
	}
}

// count counts the segments with one of the flags.
func (c *capture) count(any segment.Flags) int {
	time.Sleep(20 * time.Millisecond) // what is under way
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, s := range c.segments {
		if s.Flags&any != 0 {
			n++
		}
	}
	return n
}

// quiet fails the test if something was reset or ended.
func (l *lab) quiet(c *capture) {
	l.Helper()
	if n := c.count(segment.RST | segment.FIN); n != 0 {
		l.Errorf("%d segments with RST or FIN", n)
	}
}

// unrepeated fails the test if the peer had to repeat something.
func (l *lab) unrepeated(peer *net.TCPConn) {
	l.Helper()
	info, err := netlab.Info(peer)
	l.check(err)
	if n := info.Total_retrans; n != 0 {
		l.Errorf("%d retransmissions", n)
	}
}
