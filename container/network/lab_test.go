package network

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// lab is a network namespace that plays the host, another that plays a machine
// beside it, and a wire between them.
type lab struct {
	t      *testing.T
	dir    string
	here   string // path of the host's namespace
	remote string
	host   *Host
	config Config
}

// Addresses on the wire: TEST-NET-1 of RFC 5737.
var (
	hostAddr   = netip.MustParseAddr("192.0.2.1")
	remoteAddr = netip.MustParseAddr("192.0.2.2")
)

func newLab(t *testing.T) *lab {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Nft)
	dir := t.TempDir()
	l := &lab{t: t, dir: dir, here: filepath.Join(dir, "here"), remote: filepath.Join(dir, "remote")}
	l.config = Config{StateFile: filepath.Join(dir, "state", "network.json"), Table: "torpor_test", NamespaceDir: filepath.Join(dir, "ns")}
	for _, path := range []string{l.here, l.remote} {
		if err := netns.Ensure(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := netns.Remove(path); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(l.removeNamespaces)
	l.wire()
	l.open()
	return l
}

// removeNamespaces takes away those of containers that a test leaves.
func (l *lab) removeNamespaces() {
	entries, _ := os.ReadDir(l.config.NamespaceDir)
	for _, e := range entries {
		if err := netns.Remove(filepath.Join(l.config.NamespaceDir, e.Name())); err != nil {
			l.t.Error(err)
		}
	}
}

// wire connects the two machines.
func (l *lab) wire() {
	l.t.Helper()
	other, err := os.Open(l.remote)
	if err != nil {
		l.t.Fatal(err)
	}
	defer other.Close()
	up := func(device string, a netip.Addr) error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrReplace(link, &netlink.Addr{IPNet: toIPNet(a, 24)}), netlink.LinkSetUp(link), netlink.LinkSetUp(lo))
	}
	l.in(l.here, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "wire0"
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "wire0", PeerNamespace: netlink.NsFd(other.Fd())}
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return up("wire0", hostAddr)
	})
	l.in(l.remote, func() error { return up("wire0", remoteAddr) })
	l.in(l.here, func() error { return awaitCarrier("wire0") })
}

// awaitCarrier waits until the kernel has noticed that both ends are up.
func awaitCarrier(device string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(device)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("device %s is %s", device, link.Attrs().OperState)
		}
	}
}

// in runs f in a namespace; an error ends the test.
func (l *lab) in(path string, f func() error) {
	l.t.Helper()
	if err := netns.Do(path, f); err != nil {
		l.t.Fatal(err)
	}
}

// do runs f as the host; an error ends the test.
func (l *lab) do(f func(h *Host) error) {
	l.t.Helper()
	l.in(l.here, func() error { return f(l.host) })
}

// open opens the state anew, as a daemon does that was killed.
func (l *lab) open() {
	l.t.Helper()
	if l.host != nil {
		l.host.Close() // a killed process's sockets are closed too
	}
	h, err := Open(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	l.host = h
	l.t.Cleanup(func() { h.Close() })
}

// run runs a command as the host and returns what it prints.
func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	var out []byte
	var complaints bytes.Buffer // of ip about namespaces that end, too
	l.in(l.here, func() error {
		var err error
		cmd := exec.Command(name, args...)
		cmd.Stderr = &complaints
		if out, err = cmd.Output(); err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, &complaints)
		}
		return nil
	})
	return string(out)
}

// network makes a network.
func (l *lab) network(spec host.NetworkSpec) {
	l.t.Helper()
	l.do(func(h *Host) error { return h.EnsureNetwork(spec) })
}

// container makes a container on networks and returns its attachments and the
// path of its namespace.
func (l *lab) container(id host.ContainerID, networks ...string) ([]Attachment, string) {
	l.t.Helper()
	var wanted []host.NetworkAttachment
	for _, name := range networks {
		wanted = append(wanted, host.NetworkAttachment{Network: name})
	}
	return l.attach(id, wanted)
}

func (l *lab) attach(id host.ContainerID, wanted []host.NetworkAttachment) (attachments []Attachment, path string) {
	l.t.Helper()
	l.do(func(h *Host) error {
		var err error
		if attachments, err = h.Reserve(id, wanted); err != nil {
			return err
		}
		path, err = h.Attach(id, attachments)
		return err
	})
	return attachments, path
}

// publish publishes one port of a container.
func (l *lab) publish(id host.ContainerID, to netip.Addr, specs ...host.PortSpec) []*Port {
	l.t.Helper()
	var ports []*Port
	l.do(func(h *Host) error {
		var err error
		ports, err = h.Publish(id, "", to, specs)
		return err
	})
	return ports
}

// serveTCP answers every connection to a port in a namespace with the client's
// address, then echoes lines until the client ends.
func (l *lab) serveTCP(path, address string) {
	l.t.Helper()
	var listener net.Listener
	l.in(path, func() error {
		var err error
		listener, err = net.Listen("tcp4", address)
		return err
	})
	ended := make(chan struct{})
	l.t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// serveUDP answers every datagram with its sender's address.
func (l *lab) serveUDP(path, address string) {
	l.t.Helper()
	var conn net.PacketConn
	l.in(path, func() error {
		var err error
		conn, err = net.ListenPacket("udp4", address)
		return err
	})
	ended := make(chan struct{})
	l.t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(packetWriter{conn, from}, from.(*net.UDPAddr).IP)
		}
	}()
}

type packetWriter struct {
	conn net.PacketConn
	to   net.Addr
}

func (w packetWriter) Write(b []byte) (int, error) { return w.conn.WriteTo(b, w.to) }

// connect dials from a namespace.
func (l *lab) connect(path, protocol, address string, patience time.Duration) (conn net.Conn, err error) {
	_ = netns.Do(path, func() error {
		conn, err = net.DialTimeout(protocol, address, patience)
		return err
	})
	return conn, err
}

// seen connects from a namespace and returns the client's address as the
// server sees it.
func (l *lab) seen(path, protocol, address string) string {
	l.t.Helper()
	text, err := l.ask(path, protocol, address, 10*time.Second)
	if err != nil {
		l.t.Fatalf("from %s to %s/%s: %v", filepath.Base(path), address, protocol, err)
	}
	return text
}

// unreachable expects nobody to answer.
func (l *lab) unreachable(path, protocol, address string) {
	l.t.Helper()
	text, err := l.ask(path, protocol, address, 400*time.Millisecond)
	if err == nil {
		l.t.Errorf("from %s to %s/%s: reached, and seen as %s", filepath.Base(path), address, protocol, text)
	}
}

func (l *lab) ask(path, protocol, address string, patience time.Duration) (string, error) {
	c, err := l.connect(path, protocol+"4", address, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if protocol == "udp" {
		if _, err := c.Write([]byte("hello")); err != nil {
			return "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}
