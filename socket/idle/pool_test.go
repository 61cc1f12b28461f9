package idle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/internal/netlab"
	"torpor/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// echo is a server that suspends each connection whenever it has answered, and
// peers of it on another machine.
type echo struct {
	t        *testing.T
	lab      *netlab.Lab
	image    string
	listener net.Listener
	pool     atomic.Pointer[Pool]
	serving  sync.WaitGroup

	mu    sync.Mutex
	woken map[uint64]int
}

const echoPort = 7000

func newEcho(t *testing.T, listen netip.Addr) *echo {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Nft)
	dir := t.TempDir()
	lab, err := netlab.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	e := &echo{t: t, lab: lab, image: filepath.Join(dir, "idle.img"), woken: map[uint64]int{}}
	address := netip.AddrPortFrom(listen, echoPort)
	if err := netns.Do(lab.Here, func() (err error) { e.listener, err = net.Listen("tcp", address.String()); return err }); err != nil {
		t.Fatal(err)
	}
	e.open(address)
	e.serving.Go(e.accept)
	t.Cleanup(func() {
		e.listener.Close()
		if err := e.pool.Load().Reset(); err != nil {
			t.Error(err)
		}
		e.serving.Wait()
	})
	return e
}

func (e *echo) open(address netip.AddrPort) {
	e.t.Helper()
	pool, err := Open(Options{Path: e.image, Listen: []netip.AddrPort{address}, Wake: e.wake, Namespace: e.lab.Here,
		Failed: func(k Key, err error) { e.t.Errorf("%s: %v", k.Remote, err) }})
	if err != nil {
		e.t.Fatal(err)
	}
	e.pool.Store(pool)
}

func (e *echo) accept() {
	for tag := uint64(1); ; tag++ {
		c, err := e.listener.Accept()
		if err != nil {
			return
		}
		e.serving.Go(func() { e.serve(c.(*net.TCPConn), tag) })
	}
}

func (e *echo) wake(c *net.TCPConn, tag uint64) {
	e.mu.Lock()
	e.woken[tag]++
	e.mu.Unlock()
	e.serving.Go(func() { e.serve(c, tag) })
}

// serve answers one line and suspends the connection; at its end it closes it.
func (e *echo) serve(c *net.TCPConn, tag uint64) {
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err != nil {
		c.Close()
		return
	}
	if _, err := io.WriteString(c, line); err != nil {
		c.Close()
		return
	}
	for {
		err := e.pool.Load().Suspend(c, tag)
		switch {
		case err == nil:
			return
		case errors.Is(err, host.ErrRefused):
			if n, _ := unread(c); n > 0 {
				e.serve(c, tag) // the next request is here
				return
			}
			if state(c) != 1 {
				c.Close()
				return
			}
			time.Sleep(time.Millisecond) // until the answer is acknowledged
		default:
			e.t.Errorf("suspend: %v", err)
			c.Close()
			return
		}
	}
}

func state(c *net.TCPConn) uint8 {
	info, err := netlab.Info(c)
	if err != nil {
		return 0
	}
	return info.State
}

func unread(c *net.TCPConn) (n int, err error) {
	control(c, func(fd int) { n, err = unix.IoctlGetInt(fd, unix.SIOCINQ) })
	return n, err
}

func control(c *net.TCPConn, f func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

func (e *echo) dial(to netip.Addr) *net.TCPConn {
	e.t.Helper()
	var c net.Conn
	err := netns.Do(e.lab.There, func() (err error) {
		c, err = net.Dial("tcp", netip.AddrPortFrom(to, echoPort).String())
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// ask sends a line and wants it back.
func ask(c *net.TCPConn, line string) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	got := make([]byte, len(line)+1)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != line+"\n" {
		return fmt.Errorf("got %q, want %q", got, line)
	}
	return nil
}

func retransmissions(c *net.TCPConn) uint32 {
	info, err := netlab.Info(c)
	if err != nil {
		return 0
	}
	return info.Total_retrans
}

// awaitLen waits until so many connections are suspended.
func (e *echo) awaitLen(n int) {
	e.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); e.pool.Load().Len() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("%d connections are suspended, want %d", e.pool.Load().Len(), n)
		}
	}
}

// TestPool asks suspended connections again and again, over each kind of
// address.
func TestPool(t *testing.T) {
	for _, tt := range []struct {
		name   string
		listen netip.Addr
		to     netip.Addr
	}{
		{"IPv4", netip.IPv4Unspecified(), netlab.Here4.Addr()},
		{"IPv4, one address", netlab.Here4.Addr(), netlab.Here4.Addr()},
		{"IPv6", netip.IPv6Unspecified(), netlab.Here6.Addr()},
		{"IPv4 mapped", netip.IPv6Unspecified(), netlab.Here4.Addr()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho(t, tt.listen)
			const count, rounds = 10, 20
			conns := make([]*net.TCPConn, count)
			for i := range conns {
				conns[i] = e.dial(tt.to)
			}
			for round := range rounds {
				for i, c := range conns {
					if err := ask(c, fmt.Sprintf("round %d of %d", round, i)); err != nil {
						t.Fatalf("round %d: %v", round, err)
					}
				}
				e.awaitLen(count)
			}
			for i, c := range conns {
				if n := retransmissions(c); n > 0 {
					t.Errorf("connection %d: %d segments were sent again", i, n)
				}
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			for tag := uint64(1); tag <= count; tag++ {
				if e.woken[tag] != rounds-1 {
					t.Errorf("connection %d was woken %d times, want %d", tag, e.woken[tag], rounds-1)
				}
			}
		})
	}
}

// TestEnds shows the program the end and the reset of suspended connections.
func TestEnds(t *testing.T) {
	e := newEcho(t, netip.IPv4Unspecified())
	ending, resetting, staying := e.dial(netlab.Here4.Addr()), e.dial(netlab.Here4.Addr()), e.dial(netlab.Here4.Addr())
	for _, c := range []*net.TCPConn{ending, resetting, staying} {
		if err := ask(c, "hello"); err != nil {
			t.Fatal(err)
		}
	}
	e.awaitLen(3)
	ending.CloseWrite()
	ending.SetDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(ending); err != nil || len(b) > 0 {
		t.Errorf("after the end: %q, %v", b, err)
	}
	e.awaitLen(2)
	resetting.SetLinger(0)
	resetting.Close()
	e.awaitLen(1)
	if err := ask(staying, "still here"); err != nil {
		t.Error(err)
	}
}

// TestTake gives a connection to a program that wants to send something.
func TestTake(t *testing.T) {
	e := newEcho(t, netip.IPv4Unspecified())
	c := e.dial(netlab.Here4.Addr())
	if err := ask(c, "hello"); err != nil {
		t.Fatal(err)
	}
	e.awaitLen(1)
	k := Key{Local: netip.AddrPortFrom(netlab.Here4.Addr(), echoPort), Remote: netip.MustParseAddrPort(c.LocalAddr().String())}
	mine, tag, err := e.pool.Load().Take(k)
	if err != nil || tag != 1 {
		t.Fatalf("tag %d, %v", tag, err)
	}
	defer mine.Close()
	if _, err := io.WriteString(mine, "news\n"); err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "news\n" {
		t.Errorf("the peer got %q, %v", line, err)
	}
	if _, _, err := e.pool.Load().Take(k); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("taken twice: %v", err)
	}
}

// TestSimultaneousClose has the program and its peer close a suspended
// connection at the same time: neither is reset.
func TestSimultaneousClose(t *testing.T) {
	e := newEcho(t, netip.IPv4Unspecified())
	for i := range 40 {
		c := e.dial(netlab.Here4.Addr())
		if err := ask(c, "hello"); err != nil {
			t.Fatal(err)
		}
		e.awaitLen(1)
		k := Key{Local: netip.AddrPortFrom(netlab.Here4.Addr(), echoPort), Remote: netip.MustParseAddrPort(c.LocalAddr().String())}
		taken := make(chan error, 1)
		go func() {
			mine, _, err := e.pool.Load().Take(k)
			if err == nil {
				err = mine.Close()
			} else if errors.Is(err, host.ErrNotFound) {
				err = nil // woken by the peer's end, and closed by who serves
			}
			taken <- err
		}()
		if i%2 == 0 {
			time.Sleep(time.Duration(i) * 5 * time.Microsecond)
		}
		if err := c.CloseWrite(); err != nil {
			t.Errorf("peer: %v", err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("round %d: the peer reads %q, %v", i, b, err)
		}
		if err := <-taken; err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		e.awaitLen(0)
	}
}

// TestAnotherPool goes on after the end of a process: while there is none, what
// peers send is repeated, and then arrives.
func TestAnotherPool(t *testing.T) {
	e := newEcho(t, netip.IPv4Unspecified())
	c := e.dial(netlab.Here4.Addr())
	if err := ask(c, "hello"); err != nil {
		t.Fatal(err)
	}
	e.awaitLen(1)
	if err := e.pool.Load().Close(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- ask(c, "anybody there") }()
	select {
	case err := <-answered:
		t.Fatalf("answered by nobody: %v", err)
	case <-time.After(time.Second):
	}
	e.open(netip.AddrPortFrom(netip.IPv4Unspecified(), echoPort))
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestImageIsCompacted suspends and takes connections so often that what is dead
// would be several times what the image may have.
func TestImageIsCompacted(t *testing.T) {
	e := newEcho(t, netip.IPv4Unspecified())
	stays := e.dial(netlab.Here4.Addr()) // or the image would be empty in between
	if err := ask(stays, "hello"); err != nil {
		t.Fatal(err)
	}
	e.awaitLen(1)
	e.listener.Close() // this test accepts by itself
	var l net.Listener
	err := netns.Do(e.lab.Here, func() (err error) { l, err = net.Listen("tcp", fmt.Sprintf(":%d", echoPort)); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const count, rounds, mostBytes = 200, 200, 2 << 20 // dead would be 3.2 MB
	conns := make([]Conn, count)
	for i := range conns {
		e.dial(netlab.Here4.Addr())
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns[i].TCPConn = c.(*net.TCPConn)
	}
	for range rounds {
		for i := range conns {
			conns[i].Tag = uint64(i)
		}
		keys := make([]Key, count)
		for i := range conns {
			keys[i] = Key{Local: netip.AddrPortFrom(netlab.Here4.Addr(), echoPort), Remote: netip.MustParseAddrPort(conns[i].RemoteAddr().String())}
			keys[i].Remote = netip.AddrPortFrom(keys[i].Remote.Addr().Unmap(), keys[i].Remote.Port())
		}
		if err := errors.Join(e.pool.Load().SuspendAll(conns)...); err != nil {
			t.Fatal(err)
		}
		for i, k := range keys {
			var tag uint64
			if conns[i].TCPConn, tag, err = e.pool.Load().Take(k); err != nil || tag != uint64(i) {
				t.Fatalf("tag %d of %d, %v", tag, i, err)
			}
		}
	}
	for _, c := range conns {
		c.Close()
	}
	if s := e.pool.Load().Stats(); s.Bytes > mostBytes {
		t.Errorf("the image has %d bytes for %d connections", s.Bytes, s.Connections)
	}
	if err := ask(stays, "still here"); err != nil {
		t.Error(err)
	}
}

// TestUnreadIsRefused leaves a connection alone that has something to read.
func TestUnreadIsRefused(t *testing.T) {
	e := newEcho(t, netip.IPv4Unspecified())
	e.listener.Close() // this test accepts by itself
	var l net.Listener
	err := netns.Do(e.lab.Here, func() (err error) { l, err = net.Listen("tcp", fmt.Sprintf(":%d", echoPort)); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := e.dial(netlab.Here4.Addr())
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "request\n"); err != nil {
		t.Fatal(err)
	}
	for n := 0; n == 0; {
		n, _ = unread(accepted.(*net.TCPConn))
	}
	if err := e.pool.Load().Suspend(accepted.(*net.TCPConn), 0); !errors.Is(err, host.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
	e.serving.Go(func() { e.serve(accepted.(*net.TCPConn), 77) })
	b := make([]byte, 8)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "request\n" {
		t.Errorf("answer %q, %v", b, err)
	}
}
