package filter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"torpor/internal/netlab"
	"torpor/socket"
	"torpor/socket/segment"
)

// TestDataWakes is the whole way: data is held, the socket restored, the data
// released to it and answered, without that anything is sent twice.
func TestDataWakes(t *testing.T) {
	for _, c := range []struct{ name, listen, dial string }{
		{"IPv4", fmt.Sprintf("0.0.0.0:%d", port), fmt.Sprintf("%s:%d", here4, port)},
		{"IPv6", fmt.Sprintf("[::]:%d", port), fmt.Sprintf("[%s]:%d", here6, port)},
		{"IPv4-mapped", fmt.Sprintf("[::]:%d", port), fmt.Sprintf("%s:%d", here4, port)},
	} {
		for _, fast := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fast path %v", c.name, fast), func(t *testing.T) {
				l := newLab(t)
				b := l.bed()
				config := l.config(b)
				config.FastPath, config.Queues = fast, 2
				f, _ := l.open(config)
				served, peer := l.connect(l.listen(c.listen), c.dial)
				capture := l.capture()
				for i := range 5 {
					l.sleep(b, served)
					time.Sleep(10 * time.Millisecond)
					_, err := io.WriteString(peer, "ping")
					l.check(err)
					served = l.restored(b)
					l.expect(served, "ping")
					l.exchange(served, peer, fmt.Sprint("pong", i))
					time.Sleep(60 * time.Millisecond) // the peer's delayed ACK, which goes to a socket
				}
				l.unrepeated(peer)
				l.quiet(capture)
				n := f.Counters()
				if n.Woken != 5 || n.LastError != nil || n.Dropped+n.Answered != 0 {
					t.Errorf("counters %+v", n)
				}
				if sum := n.Passed + n.Woken + n.Answered + n.Updates + n.Limited + n.Dropped + n.SendErrors + n.WakeErrors + n.Silenced; sum != n.Packets {
					t.Errorf("%d of %d packets counted", sum, n.Packets)
				}
				if fast && n.Passed > 3 { // what came before the connection had a socket
					t.Errorf("%d packets of open sockets came to the queue", n.Passed)
				}
			})
		}
	}
}

// TestLargeDataWakes: what wakes is the first of many packets that are joined to
// up to 64 KB; their copies are cut off. When the wake takes some milliseconds,
// the peer repeats the last one (tail loss probe).
func TestLargeDataWakes(t *testing.T) {
	for name, address := range dialAddresses {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			b := l.bed()
			config := l.config(b)
			config.Queues = 2
			f, _ := l.open(config)
			served, peer := l.connect(l.listen(fmt.Sprintf("[::]:%d", port)), address)
			capture := l.capture()
			for range 10 {
				l.sleep(b, served)
				content := make([]byte, 1<<20)
				for i := range content {
					content[i] = byte(i * 13 >> 3)
				}
				sent := make(chan error, 1)
				go func() { _, err := peer.Write(content); sent <- err }()
				served = l.restored(b)
				got := make([]byte, len(content))
				l.check(served.SetReadDeadline(time.Now().Add(20 * time.Second)))
				_, err := io.ReadFull(served, got)
				l.check(errors.Join(err, <-sent))
				if !bytes.Equal(got, content) {
					t.Fatal("the content is wrong")
				}
				time.Sleep(60 * time.Millisecond)
			}
			l.quiet(capture)
			if n := f.Counters(); n.Woken != 10 || n.Lost != 0 || n.LastError != nil {
				t.Errorf("counters %+v", n)
			}
			large := 0
			capture.mu.Lock()
			defer capture.mu.Unlock()
			for _, s := range capture.segments {
				if s.DataBytes > 10000 {
					large++
				}
			}
			if large == 0 {
				t.Error("no packet was joined")
			}
		})
	}
}

// TestLinkLocal needs the name of the device in addresses.
func TestLinkLocal(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	f, _ := l.open(l.config(b))
	var address string
	l.in(l.here, func() error {
		for deadline := time.Now().Add(10 * time.Second); address == "" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			device, err := net.InterfaceByName("wire0")
			if err != nil {
				return err
			}
			addresses, err := device.Addrs()
			if err != nil {
				return err
			}
			for _, a := range addresses {
				if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsLinkLocalUnicast() {
					address = fmt.Sprintf("[%s%%wire0]:%d", p.Addr(), port)
				}
			}
		}
		return nil
	})
	var served, peer *net.TCPConn
	listener := l.listen(fmt.Sprintf("[::]:%d", port))
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) { // addresses are looked for twins first
		var c net.Conn
		var err error
		l.in(l.remote, func() error { c, err = net.Dial("tcp", address); return nil })
		if err == nil {
			peer = c.(*net.TCPConn)
			if peer.LocalAddr().(*net.TCPAddr).IP.IsLinkLocalUnicast() {
				break
			}
			c.Close()
			other, err := listener.Accept()
			l.check(err)
			other.Close()
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer peer.Close()
	served, err := listener.AcceptTCP()
	l.check(err)
	l.exchange(peer, served, "a")
	l.sleep(b, served)
	l.check(peer.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}))
	time.Sleep(3500 * time.Millisecond)
	if n := f.Counters(); n.Answered < 2 || len(b.woken()) != 0 {
		t.Errorf("counters %+v", n)
	}
	_, err = io.WriteString(peer, "b")
	l.check(err)
	l.expect(l.restored(b), "b")
	l.unrepeated(peer)
}

// TestEndOfPeer delivers FIN and RST to the restored socket.
func TestEndOfPeer(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(*net.TCPConn) error
		reason segment.Reason
		failed bool
	}{
		{"FIN", (*net.TCPConn).CloseWrite, segment.End, false},
		{"close", (*net.TCPConn).Close, segment.End, false},
		{"RST", func(c *net.TCPConn) error { c.SetLinger(0); return c.Close() }, segment.Reset, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			b := l.bed()
			l.open(l.config(b))
			served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
			l.sleep(b, served)
			l.check(c.end(peer))
			again := l.restored(b)
			l.check(again.SetReadDeadline(time.Now().Add(10 * time.Second)))
			_, err := again.Read(make([]byte, 1))
			if (err != io.EOF) != c.failed {
				t.Errorf("read: %v", err)
			}
			if got := b.woken(); !slices.Equal(got, []segment.Reason{c.reason}) {
				t.Errorf("woken for %v", got)
			}
		})
	}
}

// TestOwnerDies: nobody reads the queue for two seconds.
func TestOwnerDies(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	_, kill := l.open(l.config(b))
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
	capture := l.capture()
	l.sleep(b, served)
	kill()
	_, err := io.WriteString(peer, "are you there")
	l.check(err)
	time.Sleep(2 * time.Second)
	if n := b.woken(); len(n) != 0 {
		t.Errorf("woken %v", n)
	}
	l.open(l.config(b))
	again := l.restored(b)
	l.expect(again, "are you there")
	l.exchange(again, peer, "yes")
	info, err := netlab.Info(peer)
	l.check(err)
	if n := info.Total_retrans; n == 0 {
		t.Errorf("%d retransmissions", n)
	}
	l.quiet(capture)
}

// TestReopenUnderTraffic opens the table again and again while peers talk:
// nothing is reset, and every byte arrives.
func TestReopenUnderTraffic(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	_, kill := l.open(l.config(b))
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
	capture := l.capture()
	const lenBytes = 20 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := peer.Write(make([]byte, lenBytes))
		sent <- err
	}()
	received := make(chan error, 1)
	go func() {
		n, err := io.CopyN(io.Discard, served, lenBytes)
		if err == nil && n != lenBytes {
			err = io.ErrUnexpectedEOF
		}
		received <- err
	}()
	for range 10 {
		kill()
		_, kill = l.open(l.config(b))
		time.Sleep(20 * time.Millisecond)
	}
	for _, c := range []chan error{sent, received} {
		select {
		case err := <-c:
			l.check(err)
		case <-time.After(60 * time.Second):
			t.Fatal("the stream stands still")
		}
	}
	l.quiet(capture)
}

// TestRulesAreNeverAway sends data to a suspended connection while the filter
// dies and is opened again: the kernel would reset it if it got one packet.
func TestRulesAreNeverAway(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	f, kill := l.open(l.config(b))
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), dialAddresses["IPv4"])
	s := l.sleep(b, served)
	b.refuse = io.ErrNoProgress
	capture := l.capture()
	forger := l.forger()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				forger.send(s.Key, segment.ACK|segment.PSH, s.ReceiveNext, s.SendNext, "x")
			}
		}
	}()
	for range 20 {
		kill()
		f, kill = l.open(l.config(b))
	}
	close(stop)
	<-stopped
	// Those that wait in the queue are of the connection, and would be delivered.
	for before := ^uint64(0); before != f.Counters().WakeErrors; time.Sleep(100 * time.Millisecond) {
		before = f.Counters().WakeErrors
	}
	l.quiet(capture)
	b.mu.Lock()
	b.refuse = nil
	b.mu.Unlock()
	l.exchangeAsleep(b, peer)
}

// TestWakeFails drops the packet; the peer repeats it.
func TestWakeFails(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	b.refuse = io.ErrNoProgress
	f, _ := l.open(l.config(b))
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
	l.sleep(b, served)
	_, err := io.WriteString(peer, "now")
	l.check(err)
	time.Sleep(100 * time.Millisecond)
	if n := f.Counters(); n.WakeErrors == 0 || n.LastError == nil || n.Woken != 0 {
		t.Errorf("counters %+v", n)
	}
	b.mu.Lock()
	b.refuse = nil
	b.mu.Unlock()
	l.expect(l.restored(b), "now")
}

// TestSuspendedUnderLoad suspends a connection whenever nothing is to be read,
// while its peer goes on sending.
func TestSuspendedUnderLoad(t *testing.T) {
	for _, fast := range []bool{false, true} {
		t.Run(fmt.Sprintf("fast path %v", fast), func(t *testing.T) {
			l := newLab(t)
			b := l.bed()
			config := l.config(b)
			config.FastPath = fast
			f, _ := l.open(config)
			served, peer := l.connect(l.listen(fmt.Sprintf("[::]:%d", port)), dialAddresses["IPv4"])
			capture := l.capture()
			content := make([]byte, 8<<20)
			for i := range content {
				content[i] = byte(i * 13 >> 3)
			}
			sent := make(chan error, 1)
			go func() { sent <- dribble(peer, content) }()
			got := make([]byte, 0, len(content))
			suspended := 0
			for len(got) < len(content) {
				l.check(served.SetReadDeadline(time.Now().Add(500 * time.Microsecond)))
				n, err := served.Read(got[len(got):cap(got)])
				got = got[:len(got)+n]
				if errors.Is(err, os.ErrDeadlineExceeded) {
					if s := l.sleep(b, served); len(s.Unread) > 0 { // perhaps nothing comes any more
						l.in(l.here, func() error { return b.Wake(s.Key, segment.Data) })
					}
					served = l.restored(b)
					suspended++
				} else {
					l.check(err)
				}
			}
			l.check(<-sent)
			if !bytes.Equal(got, content) {
				t.Error("the content is wrong")
			}
			l.quiet(capture)
			info, err := netlab.Info(peer)
			l.check(err)
			t.Logf("suspended %d times, %d retransmissions, %+v", suspended, info.Total_retrans, f.Counters())
		})
	}
}

// dribble sends pieces of all sizes with gaps of about the time that a
// connection is awake.
func dribble(c *net.TCPConn, content []byte) error {
	r := rand.New(rand.NewPCG(3, 4))
	for len(content) > 0 {
		n := min(len(content), 1+r.IntN(64<<10))
		if _, err := c.Write(content[:n]); err != nil {
			return err
		}
		content = content[n:]
		time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
	}
	return nil
}

// TestSegmentsOfTheKernel parses what two kernels say to each other.
func TestSegmentsOfTheKernel(t *testing.T) {
	for name, address := range dialAddresses {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			capture := l.capture()
			served, peer := l.connect(l.listen(fmt.Sprintf("[::]:%d", port)), address)
			content := make([]byte, 300_000)
			sent := make(chan error, 1)
			go func() { _, err := peer.Write(content); sent <- err }()
			_, err := io.ReadFull(served, make([]byte, len(content)))
			l.check(errors.Join(err, <-sent, peer.Close(), served.Close()))
			if n := capture.count(segment.FIN); n != 2 {
				t.Errorf("%d segments with FIN", n)
			}
			capture.mu.Lock()
			defer capture.mu.Unlock()
			in := socket.Key{Local: netip.MustParseAddrPort(address)}
			in.Remote = netip.AddrPortFrom(netip.MustParseAddr(map[string]string{"IPv4": remote4, "IPv6": remote6}[name]), uint16(peer.LocalAddr().(*net.TCPAddr).Port))
			total := 0
			for _, s := range capture.segments {
				if s.Key == in {
					total += s.DataBytes
				} else if s.Local != in.Remote || s.Remote != in.Local {
					t.Errorf("segment of %v", s.Key)
				}
				if !s.HasTimestamps || s.Timestamp == 0 {
					t.Errorf("no timestamps: %+v", s)
				}
			}
			if want := len(content) + len("welcome"); total != want {
				t.Errorf("%d bytes, want %d", total, want)
			}
		})
	}
}
