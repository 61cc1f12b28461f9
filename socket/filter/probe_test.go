package filter

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/internal/netlab"
)

var dialAddresses = map[string]string{"IPv4": fmt.Sprintf("%s:%d", here4, port), "IPv6": fmt.Sprintf("[%s]:%d", here6, port)}

// TestKeepalivesAreAnswered: three missing answers would end the connection.
func TestKeepalivesAreAnswered(t *testing.T) {
	for name, address := range dialAddresses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			b := l.bed()
			f, _ := l.open(l.config(b))
			served, peer := l.connect(l.listen(fmt.Sprintf("[::]:%d", port)), address)
			capture := l.capture()
			l.check(peer.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}))
			l.sleep(b, served)
			time.Sleep(6500 * time.Millisecond)
			if n := f.Counters(); n.Answered < 5 || n.Answered > 8 || len(b.woken()) != 0 || n.LastError != nil {
				t.Errorf("counters %+v, woken %v", n, b.woken())
			}
			l.exchangeAsleep(b, peer)
			l.unrepeated(peer)
			l.quiet(capture)
		})
	}
}

// exchangeAsleep shows that a suspended connection works.
func (l *lab) exchangeAsleep(b *bed, peer *net.TCPConn) *net.TCPConn {
	l.Helper()
	_, err := io.WriteString(peer, "wake up")
	l.check(err)
	c := l.restored(b)
	l.expect(c, "wake up")
	l.exchange(c, peer, "good morning")
	return c
}

// TestClosedWindow suspends a connection that is not ready to receive; its peer
// probes, and goes on after the wake.
func TestClosedWindow(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	f, _ := l.open(l.config(b))
	listener := l.listen(fmt.Sprintf("0.0.0.0:%d", port))
	raw, err := listener.SyscallConn()
	l.check(err)
	l.check(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<10) }))
	l.check(err)
	served, peer := l.connect(listener, fmt.Sprintf("%s:%d", here4, port))
	capture := l.capture()
	const lenBytes = 1 << 20
	var wait sync.WaitGroup
	wait.Go(func() {
		content := make([]byte, lenBytes)
		for i := range content {
			content[i] = byte(i * 7)
		}
		if _, err := peer.Write(content); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(500 * time.Millisecond)
	s := l.sleep(b, served)
	if edge := s.Window.Updated + 0; len(s.Unread) == 0 || (edge + 0).After(s.ReceiveNext) {
		t.Errorf("%d bytes unread, window %+v", len(s.Unread), s.Window)
	}
	time.Sleep(4 * time.Second)
	if n := f.Counters(); n.Answered < 2 || len(b.woken()) != 0 || n.WakeErrors != 0 {
		t.Errorf("counters %+v", n)
	}
	// The application comes back by itself.
	b.mu.Lock()
	delete(b.asleep, s.Key)
	b.mu.Unlock()
	var again *net.TCPConn
	l.in(l.here, func() (err error) { again, err = restore(s); return err })
	defer again.Close()
	l.check(again.SetReadDeadline(time.Now().Add(30 * time.Second)))
	got := make([]byte, lenBytes)
	_, err = io.ReadFull(again, got)
	l.check(err)
	for i := range got {
		if got[i] != byte(i*7) {
			t.Fatalf("byte %d is wrong", i)
		}
	}
	wait.Wait()
	l.quiet(capture)
}

// TestPeerChangesItsWindow: the peer reads what it was sent before, and says so.
func TestPeerChangesItsWindow(t *testing.T) {
	l := newLab(t)
	b := l.bed()
	l.open(l.config(b))
	served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
	raw, err := peer.SyscallConn()
	l.check(err)
	l.check(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10) }))
	l.check(err)
	lenBytes := 0
	for range 1000 { // until less than two pieces fit
		const piece = 8 << 10
		n, err := served.Write(make([]byte, piece))
		l.check(err)
		lenBytes += n
		l.check(acknowledged(served)) // or what is said of the window is older than this piece
		info, err := netlab.Info(served)
		l.check(err)
		if info.Snd_wnd < 2*piece {
			break
		}
	}
	time.Sleep(200 * time.Millisecond)
	before := l.sleep(b, served)
	l.check(peer.SetReadDeadline(time.Now().Add(10 * time.Second)))
	_, err = io.ReadFull(peer, make([]byte, lenBytes))
	l.check(err)
	time.Sleep(200 * time.Millisecond)
	b.mu.Lock()
	windows := append(b.windows[:0:0], b.windows...)
	b.mu.Unlock()
	if len(windows) == 0 || windows[len(windows)-1].Send <= before.Window.Send {
		t.Errorf("window was %d, updates %+v", before.Window.Send, windows)
	}
	if len(b.woken()) != 0 {
		t.Errorf("woken for %v", b.woken())
	}
	l.exchangeAsleep(b, peer)
	l.unrepeated(peer)
}

// acknowledged waits until the peer has acknowledged all that was sent.
func acknowledged(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := 0
		if e := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); e != nil || err != nil {
			return errors.Join(e, err)
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d bytes are not acknowledged", left)
		}
	}
}
