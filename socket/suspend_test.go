package socket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/internal/netlab"
	"torpor/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// pair is a connection of two machines: this end is suspended, the other is an
// ordinary peer.
type pair struct {
	t         *testing.T
	lab       *netlab.Lab
	listener  net.Listener
	peer      *net.TCPConn
	fd        int
	suspender *Suspender
}

// connect makes a connection; network and address are the listener's, target
// is what the peer connects to.
func connect(t *testing.T, network, address, target string) *pair {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	lab, err := netlab.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	p := &pair{t: t, lab: lab, fd: -1}
	p.here(func() (err error) {
		if p.suspender, err = NewSuspender(); err == nil {
			p.listener, err = net.Listen(network, address)
		}
		return err
	})
	t.Cleanup(func() { p.listener.Close(); p.suspender.Close() })
	p.fd, p.peer = p.dial(target)
	t.Cleanup(func() {
		p.peer.Close()
		if p.fd >= 0 {
			unix.Close(p.fd)
		}
	})
	return p
}

func (p *pair) here(f func() error) {
	p.t.Helper()
	if err := netns.Do(p.lab.Here, f); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) dial(target string) (int, *net.TCPConn) {
	p.t.Helper()
	var peer net.Conn
	err := netns.Do(p.lab.There, func() (err error) {
		peer, err = net.Dial("tcp", net.JoinHostPort(target, fmt.Sprint(p.listener.Addr().(*net.TCPAddr).Port)))
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := p.listener.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		p.t.Fatal(err)
	}
	return fd, peer.(*net.TCPConn)
}

// suspend takes the kernel's socket away.
func (p *pair) suspend() *Spec {
	p.t.Helper()
	var got Suspended
	for range 100 { // until the peer has acknowledged
		got = p.suspender.Suspend(p.fd)[0]
		if !errors.Is(got.Err, host.ErrRefused) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if got.Err != nil {
		p.t.Fatal(got.Err)
	}
	unix.Close(p.fd)
	p.fd = -1
	return got.Spec
}

// restore makes it again, from the record as it is on disk.
func (p *pair) restore(s *Spec) {
	p.t.Helper()
	p.here(func() (err error) {
		if p.fd, err = Restore(s); err != nil {
			return err
		}
		return Resume(p.fd, s)
	})
}

// talk sends both ways and compares.
func (p *pair) talk(n int) {
	p.t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcde\n"), n/16+1)[:n]
	file, err := unix.Dup(p.fd)
	if err != nil {
		p.t.Fatal(err)
	}
	f := os.NewFile(uintptr(file), "socket")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	for _, way := range []struct {
		name     string
		from, to net.Conn
	}{{"to the peer", c, p.peer}, {"from the peer", p.peer, c}} {
		failed := make(chan error, 1)
		way.from.SetDeadline(time.Now().Add(10 * time.Second))
		way.to.SetDeadline(time.Now().Add(10 * time.Second))
		go func() {
			_, err := way.from.Write(sent)
			failed <- err
		}()
		got := make([]byte, n)
		if _, err := io.ReadFull(way.to, got); err != nil {
			p.t.Fatalf("%s: %v", way.name, err)
		}
		if err := <-failed; err != nil {
			p.t.Fatal(err)
		}
		if !bytes.Equal(got, sent) {
			p.t.Fatalf("%s: other bytes", way.name)
		}
	}
}

// TestSuspend suspends and restores connections of each kind, often, with
// traffic in between.
func TestSuspend(t *testing.T) {
	for _, tt := range []struct{ name, network, address, target string }{
		{"IPv4", "tcp4", ":0", netlab.Here4.Addr().String()},
		{"IPv4, one address", "tcp4", netlab.Here4.Addr().String() + ":0", netlab.Here4.Addr().String()},
		{"IPv6", "tcp6", "[::]:0", netlab.Here6.Addr().String()},
		{"IPv4 mapped", "tcp", "[::]:0", netlab.Here4.Addr().String()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := connect(t, tt.network, tt.address, tt.target)
			p.talk(1)
			before := kernelView(t, p.fd)
			for i := range 20 {
				p.restore(p.suspend())
				if now := kernelView(t, p.fd); now != before {
					t.Fatalf("connection was\n%s\nand is\n%s", before, now)
				}
				p.talk(1 + i*9973)
			}
			after := kernelView(t, p.fd)
			if before != after {
				t.Errorf("connection was\n%s\nand is\n%s", before, after)
			}
			if r := retransmissions(t, p.peer); r != 0 {
				t.Errorf("the peer sent %d segments again", r)
			}
		})
	}
}

// kernelView is what must not change: addresses and negotiated options.
func kernelView(t *testing.T, fd int) string {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	remote, err := unix.Getpeername(fd)
	if err != nil {
		t.Fatal(err)
	}
	const ecn = 8 | 16 // not carried over
	return fmt.Sprintf("%v %v state %d options %x mss %d", local, remote, info.State, info.Options&^ecn, info.Snd_mss)
}

func retransmissions(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	info, err := netlab.Info(c)
	if err != nil {
		t.Fatal(err)
	}
	return info.Total_retrans
}

// TestUnread keeps what the application has not read, also more than a fresh
// socket has room for, and bytes that came before and after.
func TestUnread(t *testing.T) {
	for _, size := range []int{1, 1000, 100_000, 3_000_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			p := connect(t, "tcp4", ":0", netlab.Here4.Addr().String())
			if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(i * 7 >> 3)
			}
			if _, err := p.peer.Write(want); err != nil {
				t.Fatal(err)
			}
			p.await(size)
			for range 3 {
				s := p.suspend()
				if !bytes.Equal(s.Unread, want) {
					t.Fatalf("%d unread bytes of %d", len(s.Unread), size)
				}
				p.restore(s)
			}
			if _, err := p.peer.Write([]byte("end")); err != nil {
				t.Fatal(err)
			}
			p.await(size + 3)
			got := make([]byte, size+3)
			for n := 0; n < len(got); {
				m, err := unix.Read(p.fd, got[n:])
				if err != nil {
					t.Fatal(err)
				}
				n += m
			}
			if !bytes.Equal(got, append(want, "end"...)) {
				t.Error("other bytes")
			}
			p.talk(1000)
		})
	}
}

// await waits until so many bytes can be read.
func (p *pair) await(n int) {
	p.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		got, err := unix.IoctlGetInt(p.fd, unix.SIOCINQ)
		if err != nil {
			p.t.Fatal(err)
		}
		if got >= n {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d bytes of %d arrived", got, n)
		}
	}
}

// TestOptionsStay sets what applications set and reads it again.
func TestOptionsStay(t *testing.T) {
	type option struct{ level, name, value int }
	options := []option{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.SOL_SOCKET, unix.SO_SNDBUF, 100_000},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, 90_000}, {unix.SOL_SOCKET, unix.SO_MARK, 77}, {unix.SOL_SOCKET, unix.SO_PRIORITY, 5},
		{unix.SOL_SOCKET, unix.SO_RCVLOWAT, 3}, {unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 11}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 12},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12345}, {unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 9999},
		{unix.IPPROTO_TCP, unix.TCP_LINGER2, 7}, {unix.IPPROTO_IP, unix.IP_TOS, 0x28}, {unix.IPPROTO_IP, unix.IP_TTL, 33},
	}
	p := connect(t, "tcp4", ":0", netlab.Here4.Addr().String())
	for _, o := range options {
		if err := unix.SetsockoptInt(p.fd, o.level, o.name, o.value); err != nil {
			t.Fatal(err)
		}
	}
	linger := unix.Linger{Onoff: 1, Linger: 9}
	for _, err := range []error{
		unix.SetsockoptLinger(p.fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger),
		unix.SetsockoptString(p.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno"),
		unix.BindToDevice(p.fd, netlab.Device),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		var b strings.Builder
		for _, o := range options {
			n, err := unix.GetsockoptInt(p.fd, o.level, o.name)
			fmt.Fprintln(&b, o.level, o.name, n, err)
		}
		for _, o := range []struct{ level, name int }{{unix.IPPROTO_TCP, unix.TCP_CONGESTION}, {unix.SOL_SOCKET, unix.SO_BINDTODEVICE}, {unix.SOL_SOCKET, unix.SO_LINGER}} {
			s, err := unix.GetsockoptString(p.fd, o.level, o.name)
			fmt.Fprintf(&b, "%d %d %q %v\n", o.level, o.name, s, err)
		}
		return b.String()
	}
	before := read()
	p.restore(p.suspend())
	if after := read(); after != before {
		t.Errorf("options were\n%sand are\n%s", before, after)
	}
	p.talk(10_000)
}

// TestResume takes a connection back that was not closed.
func TestResume(t *testing.T) {
	p := connect(t, "tcp4", ":0", netlab.Here4.Addr().String())
	for range 3 {
		got := p.suspender.Suspend(p.fd)[0]
		if got.Err != nil {
			t.Fatal(got.Err)
		}
		if err := Resume(p.fd, got.Spec); err != nil {
			t.Fatal(err)
		}
		p.talk(10_000)
	}
}

// TestRefused names what can not be suspended, and leaves it as it was.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		prepare      func(p *pair) error
	}{
		{"end of the peer", "CLOSE-WAIT", func(p *pair) error { return errors.Join(p.peer.CloseWrite(), p.awaitState(8)) }},
		{"own end", "FIN-WAIT", func(p *pair) error { return errors.Join(unix.Shutdown(p.fd, unix.SHUT_WR), p.awaitState(5)) }},
		{"closed for reading", "shut down", func(p *pair) error { return unix.Shutdown(p.fd, unix.SHUT_RD) }},
		{"reset", "closed", func(p *pair) error { return errors.Join(p.peer.SetLinger(0), p.peer.Close(), p.awaitState(7)) }},
		{"unsent data", "not acknowledged", func(p *pair) error {
			for {
				if _, err := unix.Write(p.fd, make([]byte, 1<<20)); err == unix.EAGAIN {
					return nil
				} else if err != nil {
					return err
				}
			}
		}},
		{"urgent data", "urgent", func(p *pair) error {
			raw, err := p.peer.SyscallConn()
			if err != nil {
				return err
			}
			raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil) })
			time.Sleep(20 * time.Millisecond)
			return err
		}},
		{"socket filter", "filter", func(p *pair) error {
			accept := unix.SockFilter{Code: unix.BPF_RET, K: 1 << 16}
			return unix.SetsockoptSockFprog(p.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &accept})
		}},
		{"record route", "IP options", func(p *pair) error {
			return unix.SetsockoptString(p.fd, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x07\x07\x04\x00\x00\x00\x00\x00")
		}},
		{"signed", "MD5", func(p *pair) error {
			key := unix.TCPMD5Sig{Keylen: 3, Key: [80]uint8{1, 2, 3}}
			remote := netip.MustParseAddrPort(p.peer.LocalAddr().String())
			key.Addr.Family = unix.AF_INET
			*(*[4]byte)(key.Addr.Data[2:6]) = remote.Addr().As4()
			return unix.SetsockoptTCPMD5Sig(p.fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &key)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := connect(t, "tcp4", ":0", netlab.Here4.Addr().String())
			if err := syscall.SetNonblock(p.fd, true); err != nil {
				t.Fatal(err)
			}
			if err := tt.prepare(p); err != nil {
				t.Fatal(err)
			}
			got := p.suspender.Suspend(p.fd)[0]
			if !errors.Is(got.Err, host.ErrRefused) || !strings.Contains(got.Err.Error(), tt.reason) {
				t.Errorf("got %v, want a refusal with %q", got.Err, tt.reason)
			}
			if n, err := unix.GetsockoptInt(p.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR); err != nil || n != 0 {
				t.Errorf("repair mode %d, %v", n, err)
			}
		})
	}
	t.Run("listener", func(t *testing.T) {
		p := connect(t, "tcp4", ":0", netlab.Here4.Addr().String())
		f, err := p.listener.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got := p.suspender.Suspend(int(f.Fd()))[0]; !errors.Is(got.Err, host.ErrRefused) {
			t.Errorf("got %v", got.Err)
		}
	})
}

func (p *pair) awaitState(state uint8) error {
	for range 1000 {
		info, err := unix.GetsockoptTCPInfo(p.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.State == state {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("not in state %d", state)
}
