package filter

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

// BenchmarkEcho measures a round trip over a wire between two namespaces. The
// difference to the first row is what the filter adds.
func BenchmarkEcho(b *testing.B) {
	for _, c := range []struct {
		name               string
		filter, fast, wake bool
	}{{"without filter", false, false, false}, {"through the queue", true, false, false}, {"fast path", true, true, false}, {"wake", true, true, true}} {
		b.Run(c.name, func(b *testing.B) {
			kerneltest.Require(b, kerneltest.Root, kerneltest.NetNS)
			l := newLab(b)
			bed := l.bed()
			if c.filter {
				config := l.config(bed)
				config.FastPath = c.fast
				l.open(config)
			}
			served, peer := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
			echo := &echoer{lab: l, bed: bed, served: served}
			var times []time.Duration
			for b.Loop() {
				times = append(times, echo.round(peer, c.wake))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100])/1e3, "p99-µs")
		})
	}
}

// echoer answers by one byte.
type echoer struct {
	*lab
	bed    *bed
	served *net.TCPConn
}

// round measures one round trip, after both ends were quiet as between requests.
func (e *echoer) round(peer *net.TCPConn, wake bool) time.Duration {
	if wake {
		e.sleep(e.bed, e.served)
	}
	done := make(chan error, 1)
	go func() {
		c := e.served
		if wake {
			if c = <-e.bed.awake; c == nil {
				done <- io.ErrClosedPipe // the benchmark has failed
				return
			}
			e.served = c
		}
		_, err := io.CopyN(c, c, 1)
		done <- err
	}()
	time.Sleep(2 * time.Millisecond)
	start := time.Now()
	_, err := peer.Write([]byte{1})
	e.check(err)
	_, err = io.ReadFull(peer, make([]byte, 1))
	took := time.Since(start)
	e.check(err)
	e.check(<-done)
	return took
}

// BenchmarkFlood measures how many packets of connections that nobody knows one
// reader passes a second; the kernel answers each by a RST.
func BenchmarkFlood(b *testing.B) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.NetNS)
	l := newLab(b)
	bed := l.bed()
	f, _ := l.open(l.config(bed))
	served, _ := l.connect(l.listen(fmt.Sprintf("0.0.0.0:%d", port)), fmt.Sprintf("%s:%d", here4, port))
	s := l.sleep(bed, served)
	forger := l.forger()
	before := f.Counters()
	start := time.Now()
	for i := 0; b.Loop(); i++ {
		k := s.Key
		k.Remote = addPort(k.Remote, 1+i%1000)
		forger.send(k, 16, 1, 1, "")
	}
	n := f.Counters()
	b.ReportMetric(float64(n.Packets-before.Packets)/time.Since(start).Seconds(), "packets/s")
	b.ReportMetric(float64(n.Lost), "lost")
}

func addPort(a netip.AddrPort, n int) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(n))
}
