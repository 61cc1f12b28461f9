package filter

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"torpor/kernel/rawip"
	"torpor/socket"
	"torpor/socket/segment"
)

// forger sends segments in the name of a peer.
type forger struct {
	l      *lab
	sender *rawip.Sender
}

func (l *lab) forger() *forger {
	l.Helper()
	f := &forger{l: l}
	l.in(l.remote, func() (err error) { f.sender, err = rawip.Open(); return err })
	l.Cleanup(func() { f.sender.Close() })
	return f
}

// send sends a segment to the key's local end. Its checksum is right.
func (f *forger) send(k socket.Key, flags segment.Flags, seq, ack socket.Sequence, data string) {
	a := segment.Answer{Key: socket.Key{Local: k.Remote, Remote: k.Local}, Seq: seq, Ack: ack, Window: 1000}
	b := forge(a.AppendTo(nil), k.Local.Addr().Is4(), byte(flags), data)
	for range 100 {
		err := f.sender.Send(b, k.Local.Addr(), 0)
		if err == nil {
			return
		}
		time.Sleep(time.Millisecond) // the device's queue is full
	}
	f.l.Error("send forged segment: no room")
}

// forge changes flags and data of an answer.
func forge(b []byte, v4 bool, flags byte, data string) []byte {
	ipBytes, addresses := 40, b[8:40]
	if v4 {
		ipBytes, addresses = 20, b[12:20]
	}
	b = append(b, data...)
	tcp := b[ipBytes:]
	tcp[13] = flags
	if v4 {
		b[2], b[3] = byte(len(b)>>8), byte(len(b)) // the kernel renews the checksum
	} else {
		b[4], b[5] = byte(len(tcp)>>8), byte(len(tcp))
	}
	tcp[16], tcp[17] = 0, 0
	n := uint32(6 + len(tcp))
	for _, part := range [][]byte{addresses, tcp} {
		for i, c := range part {
			n += uint32(c) << (8 * (1 - i%2))
		}
	}
	n = n>>16 + n&0xffff
	n = ^(n>>16 + n)
	tcp[16], tcp[17] = byte(n>>8), byte(n)
	return b
}

// TestForgeriesWakeNobody floods a suspended connection.
func TestForgeriesWakeNobody(t *testing.T) {
	for name, address := range dialAddresses {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			b := l.bed()
			config := l.config(b)
			config.ChallengeRate = 50
			f, _ := l.open(config)
			served, peer := l.connect(l.listen(fmt.Sprintf("[::]:%d", port)), address)
			s := l.sleep(b, served)
			forger := l.forger()
			const rounds = 500
			far := s.ReceiveNext + 1<<30
			for range rounds {
				forger.send(s.Key, segment.ACK|segment.PSH, far, s.SendNext, "forged")
				forger.send(s.Key, segment.ACK|segment.PSH, s.ReceiveNext, s.SendNext+1<<20, "forged")
				forger.send(s.Key, segment.RST, far, 0, "")
				forger.send(s.Key, segment.RST, s.ReceiveNext+1, 0, "")
				forger.send(s.Key, segment.SYN, far, 0, "")
				forger.send(s.Key, segment.ACK|segment.FIN, far, s.SendNext, "")
				forger.send(s.Key, segment.ACK, far, s.SendNext, "")
				forger.send(s.Key, 0, s.ReceiveNext, s.SendNext, "forged")
			}
			time.Sleep(200 * time.Millisecond)
			n := f.Counters()
			if len(b.woken()) != 0 || n.Refused < rounds*7 || n.Answered == 0 || n.Answered > 60 || n.Limited < rounds*5 {
				t.Errorf("woken %v, counters %+v", b.woken(), n)
			}
			l.exchangeAsleep(b, peer)
		})
	}
}

// TestResetInTheWindowIsChallenged: the peer answers the challenge with a RST
// that is exact, if it has no such connection.
func TestResetInTheWindowIsChallenged(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	f, _ := l.open(l.config(b))
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
	s := l.sleep(b, served)
	forger := l.forger()
	forger.send(s.Key, segment.RST, s.ReceiveNext+1000, 0, "")
	time.Sleep(150 * time.Millisecond)
	if n := f.Counters(); n.Answered != 1 || len(b.woken()) != 0 { // the peer lives
		t.Errorf("counters %+v", n)
	}
	_, err := suspend(l.remote, peer) // the peer is gone without a word
	l.check(err)
	forger.send(s.Key, segment.SYN, 1, 0, "")
	again := l.restored(b)
	l.check(again.SetReadDeadline(time.Now().Add(10 * time.Second)))
	if _, err := again.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on")
	}
	if why := b.woken(); len(why) != 1 || why[0] != segment.Reset {
		t.Errorf("woken for %v", why)
	}
}

// TestFloodOfSYNs lets real clients through, and wakes nobody.
func TestFloodOfSYNs(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	config := l.config(b)
	config.SYNRate = 100
	f, _ := l.open(config)
	listener := l.listen(fmt.Sprintf("0.0.0.0:%d", port))
	served, peer := l.connect(listener, fmt.Sprintf("%s:%d", here4, port))
	l.sleep(b, served)
	forger := l.forger()
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				stopped <- n
				return
			default:
			}
			k := socket.Key{Local: netip.AddrPortFrom(netip.MustParseAddr(here4), port),
				Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + n%200)}), uint16(1024+n%60000))}
			forger.send(k, segment.SYN, socket.Sequence(n), 0, "")
			if n%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	var clients []net.Conn
	l.in(l.remote, func() error {
		for range 5 {
			c, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", here4, port), 10*time.Second)
			if err != nil {
				return err
			}
			clients = append(clients, c)
		}
		return nil
	})
	took := time.Since(start)
	close(stop)
	sent := <-stopped
	n := f.Counters()
	t.Logf("%d SYNs sent, %d came to the queue; 5 clients connected in %v", sent, n.Packets, took)
	if n.Packets > uint64(sent)/2 || len(b.woken()) != 0 {
		t.Errorf("counters %+v of %d sent", n, sent)
	}
	for _, c := range clients {
		c.Close()
	}
	l.exchangeAsleep(b, peer)
}

// TestKernelsResetIsHeld sends a RST as the kernel would for a packet whose
// socket is gone.
func TestKernelsResetIsHeld(t *testing.T) {
	for name, address := range dialAddresses {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			b := l.bed()
			f, _ := l.open(l.config(b))
			served, peer := l.connect(l.listen(fmt.Sprintf("[::]:%d", port)), address)
			s := l.sleep(b, served)
			capture := l.capture()
			here := &forger{l: l}
			l.in(l.here, func() (err error) { here.sender, err = rawip.Open(); return err })
			defer here.sender.Close()
			out := socket.Key{Local: s.Remote, Remote: s.Local}
			here.send(out, segment.RST, s.SendNext, 0, "")
			l.quiet(capture)
			if n := f.Counters(); n.Silenced != 1 {
				t.Errorf("counters %+v", n)
			}
			out.Local = addPort(out.Local, 1) // of nobody
			here.send(out, segment.RST, s.SendNext, 0, "")
			if n := capture.count(segment.RST); n != 1 {
				t.Errorf("%d segments with RST", n)
			}
			l.exchangeAsleep(b, peer)
		})
	}
}

// TestShieldedAreNotOpened floods suspended connections with openings, more than
// come to the queue. None may get to the listener: its answer would make others
// take the connection for a new one.
func TestShieldedAreNotOpened(t *testing.T) {
	for name, address := range dialAddresses {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			b := l.bed()
			config := l.config(b)
			config.SYNRate = 5
			f, _ := l.open(config)
			listener := l.listen(fmt.Sprintf("[::]:%d", port))
			served, peer := l.connect(listener, address)
			s := l.sleep(b, served)
			l.check(f.Shield([]socket.Key{s.Key}))
			capture := l.capture()
			forger := l.forger()
			for range 100 {
				forger.send(s.Key, segment.SYN, s.ReceiveNext+1<<30, 0, "")
			}
			other := s.Key
			other.Remote = netip.AddrPortFrom(other.Remote.Addr(), 7)
			forger.send(other, segment.SYN, 1, 0, "")
			time.Sleep(100 * time.Millisecond)
			capture.mu.Lock()
			for _, seg := range capture.segments {
				if seg.Flags.Has(segment.SYN|segment.ACK) && seg.Local == s.Remote {
					t.Fatalf("answered: %+v", seg)
				}
			}
			if !slices.ContainsFunc(capture.segments, func(seg segment.Segment) bool { return seg.Flags.Has(segment.SYN | segment.ACK) }) {
				t.Error("another connection is not answered")
			}
			capture.mu.Unlock()
			l.exchangeAsleep(b, peer)
			l.unrepeated(peer)
		})
	}
}
