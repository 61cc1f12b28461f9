package e2e

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"torpor/kernel/netns"
	"torpor/kernel/rawip"
	"torpor/socket"
	"torpor/socket/segment"
)

// flood sends forged segments until it is stopped.
type flood struct {
	sender  *rawip.Sender
	target  netip.AddrPort
	peers   []netip.AddrPort // of real connections
	done    chan struct{}
	running sync.WaitGroup
	sent    int
	err     error
}

// floodBatch packets are sent every floodPause: some 20000 a second.
const (
	floodBatch = 200
	floodPause = 10 * time.Millisecond
)

func startFlood(namespace string, target netip.AddrPort, clients []*lineClient) *flood {
	f := &flood{target: netip.AddrPortFrom(target.Addr().Unmap(), target.Port()), done: make(chan struct{})}
	for _, c := range clients {
		a := c.conn.LocalAddr().(*net.TCPAddr).AddrPort()
		f.peers = append(f.peers, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	f.running.Go(func() {
		f.err = netns.Do(namespace, func() (err error) { f.sender, err = rawip.Open(); return err })
		for f.err == nil {
			select {
			case <-f.done:
				f.err = f.sender.Close()
				return
			case <-time.After(floodPause):
			}
			for range floodBatch {
				if err := f.send(); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
					f.err = err
				}
			}
		}
	})
	return f
}

func (f *flood) stop() error {
	close(f.done)
	f.running.Wait()
	return f.err
}

// send sends a segment of one of four kinds.
func (f *flood) send() error {
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(100 + rand.IntN(100))}), uint16(1024+rand.IntN(60000)))
	flags := segment.ACK
	switch f.sent++; f.sent % 4 {
	case 0:
		flags = segment.SYN
	case 1:
		from = f.peers[rand.IntN(len(f.peers))]
	case 2:
		from, flags = f.peers[rand.IntN(len(f.peers))], segment.SYN
	}
	a := segment.Answer{Key: socket.Key{Local: from, Remote: f.target}, Seq: socket.Sequence(rand.Uint32()), Ack: socket.Sequence(rand.Uint32()), Window: 1000}
	b := a.AppendTo(nil)
	tcp := b[20:]
	sum := uint32(^binary.BigEndian.Uint16(tcp[16:])) + uint32(^uint16(segment.ACK)) + uint32(flags) // RFC 1624
	sum = sum&0xffff + sum>>16
	tcp[13] = byte(flags)
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum&0xffff+sum>>16))
	return f.sender.Send(b, f.target.Addr(), 0)
}
