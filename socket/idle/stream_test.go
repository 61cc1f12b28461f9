package idle

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/internal/netlab"
	"torpor/kernel/netns"
)

// direction is what went over a connection in one direction, as one end knows.
type direction struct {
	bytes int
	hash  hash.Hash
}

func (d *direction) add(b []byte) {
	d.bytes += len(b)
	d.hash.Write(b)
}

func newDirection() *direction { return &direction{hash: sha256.New()} }

// send sends chunks of random lengths and content, with pauses between them, in
// which the connection may be suspended in the middle of what is sent.
func (d *direction) send(c net.Conn, chunks int) error {
	for range chunks {
		b := make([]byte, 1+rand.IntN(1<<rand.IntN(15)))
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
		d.add(b)
		time.Sleep(rand.N(4 * time.Millisecond))
	}
	return nil
}

// streams is a server that takes what comes, says something itself, and suspends
// each connection on which nothing came for a moment.
type streams struct {
	t       *testing.T
	pool    *Pool
	serving sync.WaitGroup
	ends    [streamConns]streamEnd // by tag; of who has the connection
}

type streamEnd struct {
	in, out *direction
	wakes   atomic.Int64
	over    chan struct{} // closed at the end of the stream
}

const (
	streamConns = 20
	streamPause = 2 * time.Millisecond // on which a connection is suspended
)

func (s *streams) wake(c *net.TCPConn, tag uint64) {
	s.ends[tag].wakes.Add(1)
	s.serving.Go(func() { s.serve(c, tag) })
}

func (s *streams) serve(c *net.TCPConn, tag uint64) {
	end := &s.ends[tag]
	b := make([]byte, 64<<10)
	if err := end.out.send(c, rand.IntN(3)); err != nil {
		s.t.Errorf("connection %d: write: %v", tag, err)
	}
	for {
		c.SetReadDeadline(time.Now().Add(streamPause))
		n, err := c.Read(b)
		end.in.add(b[:n])
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := s.pool.Suspend(c, tag); err == nil {
				return
			} else if !errors.Is(err, host.ErrRefused) { // something is under way
				s.t.Errorf("connection %d: suspend: %v", tag, err)
			}
		default:
			if err != io.EOF {
				s.t.Errorf("connection %d: read: %v", tag, err)
			}
			c.Close()
			close(end.over)
			return
		}
	}
}

// streamPeer is the other end.
type streamPeer struct {
	conn    *net.TCPConn
	key     Key
	in, out *direction
	reading sync.WaitGroup
	failed  error // of reading
}

func (p *streamPeer) read() {
	b := make([]byte, 64<<10)
	for {
		n, err := p.conn.Read(b)
		p.in.add(b[:n])
		if err != nil {
			if err != io.EOF {
				p.failed = err
			}
			return
		}
	}
}

// cycle waits until the connection is suspended, and wakes it.
func (p *streamPeer) cycle(pool *Pool) error {
	for deadline := time.Now().Add(20 * time.Second); !pool.image.Has(p.key); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			return errors.New("it is not suspended")
		}
	}
	return p.out.send(p.conn, 1+rand.IntN(2))
}

// TestStreams suspends connections a thousand times, while both ends send at any
// time. No byte is lost, doubled or changed, and nothing is reset.
func TestStreams(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Nft)
	for _, tt := range []struct {
		name   string
		local  netip.Addr
		cycles int64 // of each connection; each suspension waits some 15 ms for packets under way
	}{
		{"fast path", netip.IPv4Unspecified(), 50},
		{"all by the queue", netlab.Here4.Addr(), 15},
	} {
		t.Run(tt.name, func(t *testing.T) { testStreams(t, netip.AddrPortFrom(tt.local, echoPort), tt.cycles) })
	}
}

func testStreams(t *testing.T, address netip.AddrPort, cycles int64) {
	dir := t.TempDir()
	lab, err := netlab.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	var l net.Listener
	if err := netns.Do(lab.Here, func() (err error) { l, err = net.Listen("tcp4", address.String()); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &streams{t: t}
	s.pool, err = Open(Options{Path: filepath.Join(dir, "idle.img"), Listen: []netip.AddrPort{address}, Namespace: lab.Here, Wake: s.wake,
		Failed: func(k Key, err error) { t.Errorf("%s: %v", k.Remote, err) }})
	if err != nil {
		t.Fatal(err)
	}
	var captures []*netlab.Capture
	for _, path := range []string{lab.Here, lab.There} {
		c, err := netlab.NewCapture(path, netlab.Device)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		captures = append(captures, c)
	}
	var peers [streamConns]*streamPeer
	for i := range peers {
		p := &streamPeer{in: newDirection(), out: newDirection()}
		err := netns.Do(lab.There, func() error {
			c, err := (&net.Dialer{KeepAlive: -1}).Dial("tcp4", netip.AddrPortFrom(netlab.Here4.Addr(), echoPort).String())
			if err == nil {
				p.conn = c.(*net.TCPConn)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.conn.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p.key = Key{Local: netip.AddrPortFrom(netlab.Here4.Addr(), echoPort), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
		s.ends[i].in, s.ends[i].out, s.ends[i].over = newDirection(), newDirection(), make(chan struct{})
		s.serving.Go(func() { s.serve(c.(*net.TCPConn), uint64(i)) })
		p.reading.Go(p.read)
		peers[i] = p
	}
	var writing sync.WaitGroup
	for i, p := range peers {
		writing.Go(func() {
			for s.ends[i].wakes.Load() < cycles {
				if err := p.cycle(s.pool); err != nil {
					t.Errorf("connection %d, woken %d times: %v", i, s.ends[i].wakes.Load(), err)
					return
				}
			}
		})
	}
	writing.Wait()
	for _, c := range captures {
		if n, ends := c.Seen(); n == 0 || len(ends) > 0 {
			t.Errorf("%d of %d segments end a connection: %v", len(ends), n, ends[:min(len(ends), 5)])
		}
	}
	wakes, sent, received, again := int64(0), 0, 0, uint32(0)
	for i, p := range peers {
		again += retransmissions(p.conn)
		p.conn.CloseWrite()
		select {
		case <-s.ends[i].over:
		case <-time.After(20 * time.Second):
			t.Fatalf("connection %d: the server does not see its end", i)
		}
		p.reading.Wait()
		if p.failed != nil {
			t.Errorf("connection %d: %v", i, p.failed)
		}
		same(t, "to the server", p.out, s.ends[i].in)
		same(t, "from the server", s.ends[i].out, p.in)
		wakes, sent, received = wakes+s.ends[i].wakes.Load(), sent+p.out.bytes, received+p.in.bytes
	}
	for _, c := range captures {
		_, ends := c.Seen()
		for _, end := range ends {
			if end.RST {
				t.Errorf("reset: %s", end)
			}
		}
	}
	t.Logf("%d wakes, %d bytes to the server, %d back, %d segments sent again by peers", wakes, sent, received, again)
	if err := s.pool.Reset(); err != nil {
		t.Error(err)
	}
	s.serving.Wait()
}

func same(t *testing.T, what string, sent, received *direction) {
	t.Helper()
	if sent.bytes != received.bytes || string(sent.hash.Sum(nil)) != string(received.hash.Sum(nil)) {
		t.Errorf("%s: %d bytes were sent, %d received, or other ones", what, sent.bytes, received.bytes)
	}
}
