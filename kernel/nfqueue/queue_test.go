package nfqueue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
	"torpor/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

const number = 7

// namespace makes one in which UDP to the loopback device is queued.
func namespace(t testing.TB) string {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS)
	path := filepath.Join(t.TempDir(), "ns")
	check(t, netns.Ensure(path))
	t.Cleanup(func() {
		if err := netns.Remove(path); err != nil {
			t.Error(err)
		}
	})
	check(t, netns.Do(path, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: "queue", Family: nftables.TableFamilyINet})
		chain := conn.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		info := xt.Unknown(append(binary.NativeEndian.AppendUint16(nil, number), 1, 0, 0, 0, 0, 0))
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info},
		}})
		return errors.Join(netlink.LinkSetUp(lo), conn.Flush())
	}))
	return path
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string, c Config) *Queue {
	t.Helper()
	var q *Queue
	check(t, netns.Do(path, func() (err error) { q, err = Open(c); return err }))
	t.Cleanup(func() { q.Close() })
	return q
}

// pair are two sockets that send to each other.
func pair(t testing.TB, path string) (from, to *net.UDPConn) {
	t.Helper()
	check(t, netns.Do(path, func() (err error) {
		if to, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return err
		}
		from, err = net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
		return err
	}))
	t.Cleanup(func() { from.Close(); to.Close() })
	return from, to
}

var config = Config{Number: number, CopyBytes: 64, MaxPackets: 1000, BufferBytes: 1 << 20}

func TestVerdicts(t *testing.T) {
	path := namespace(t)
	q := open(t, path, config)
	from, to := pair(t, path)
	for _, text := range []string{"drop", "accept", string(bytes.Repeat([]byte("long"), 100))} {
		_, err := from.Write([]byte(text))
		check(t, err)
		p, err := q.Receive()
		check(t, err)
		if p.LenBytes != 28+len(text) || len(p.Bytes) != min(64, p.LenBytes) || string(p.Bytes[28:32]) != text[:4] || p.Device == 0 {
			t.Errorf("packet %+v of %q", p, text)
		}
		give := q.Accept
		if text == "drop" {
			give = q.Drop
		}
		check(t, give(p.ID))
	}
	b := make([]byte, 1000)
	for _, want := range []int{6, 400} {
		check(t, to.SetReadDeadline(time.Now().Add(5*time.Second)))
		if n, err := to.Read(b); err != nil || n != want {
			t.Errorf("%d bytes, %v, want %d", n, err, want)
		}
	}
	if n, err := q.Lost(); err != nil || n != 0 {
		t.Errorf("%d lost: %v", n, err)
	}
}

func TestTaken(t *testing.T) {
	path := namespace(t)
	first := open(t, path, config)
	if err := netns.Do(path, func() error { _, err := Open(config); return err }); !errors.Is(err, unix.EPERM) {
		t.Errorf("open a queue that is taken: %v", err)
	}
	check(t, first.Stop())
	if _, err := first.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("receive after stop: %v", err)
	}
	check(t, first.Close())
	if _, err := first.Receive(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("receive after close: %v", err)
	}
	open(t, path, config) // is free again
}

// TestOpenUnderTraffic: packets that overtake the answer to the configuration
// are not lost.
func TestOpenUnderTraffic(t *testing.T) {
	path := namespace(t)
	from, _ := pair(t, path)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				from.Write([]byte("x"))
			}
		}
	}()
	early := 0
	for range 200 {
		q := open(t, path, config)
		early += len(q.early)
		for range 10 {
			p, err := q.Receive()
			check(t, err)
			check(t, q.Accept(p.ID))
		}
		check(t, q.Close())
	}
	close(stop)
	<-stopped
	t.Logf("%d packets overtook 200 answers", early)
}

// TestFull: what does not fit is lost and counted; then it goes on.
func TestFull(t *testing.T) {
	path := namespace(t)
	small := config
	small.BufferBytes = 8 << 10
	q := open(t, path, small)
	from, _ := pair(t, path)
	for range 500 {
		from.Write([]byte("x")) // EPERM for those that are dropped
	}
	n, err := q.Lost()
	if err != nil || n == 0 || n >= 500 {
		t.Errorf("%d lost: %v", n, err)
	}
	for range 500 - n {
		p, err := q.Receive()
		check(t, err)
		check(t, q.Accept(p.ID))
	}
	from.Write([]byte("x"))
	if _, err := q.Receive(); err != nil {
		t.Error(err)
	}
}

func FuzzMessages(f *testing.F) {
	b := appendHeader(nil, packetMessage, 0, 0, number)
	b = appendAttribute(b, packetHeader, 0, 0, 0, 1, 8, 0, 1)
	b = appendAttribute(b, packetLength, 0, 0, 1, 0)
	b = putLength(appendAttribute(b, packetPayload, 1, 2, 3, 4, 5))
	f.Add(b)
	f.Add(slices.Concat(configuration(config), b))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, err := cutMessage(b[:len(b):len(b)])
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			m.packet()
			m.answer()
			b = rest
		}
	})
}

// BenchmarkPacket measures a packet that is sent, received and accepted.
func BenchmarkPacket(b *testing.B) {
	path := namespace(b)
	large := config
	large.BufferBytes, large.MaxPackets = 64<<20, 65535
	q := open(b, path, large)
	from, _ := pair(b, path)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := from.Write([]byte("x")); err != nil {
			b.Fatal(err)
		}
		p, err := q.Receive()
		if err != nil {
			b.Fatal(err)
		}
		if err := q.Accept(p.ID); err != nil {
			b.Fatal(err)
		}
	}
}
