package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"torpor/kernel/netns"
)

// Segment is what a Capture remembers of a segment of TCP.
type Segment struct {
	From, To netip.AddrPort
	FIN, RST bool
}

func (s Segment) String() string {
	return fmt.Sprintf("%s > %s FIN %v RST %v", s.From, s.To, s.FIN, s.RST)
}

// Capture sees the segments that go over a device in both directions, before
// the rules for what comes in and behind those for what goes out. It may be used
// concurrently. Close it.
type Capture struct {
	file *os.File
	done chan struct{}

	mu       sync.Mutex
	segments int
	ends     []Segment
}

// captureBytes is room for what arrives while nobody reads.
const captureBytes = 32 << 20

// NewCapture begins to look at a device of the namespace at path.
func NewCapture(path, device string) (*Capture, error) {
	c := &Capture{done: make(chan struct{})}
	err := netns.Do(path, func() error {
		const all = uint16(syscall.ETH_P_ALL)<<8 | uint16(syscall.ETH_P_ALL)>>8 // in the order of the network
		fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		c.file = os.NewFile(uintptr(fd), "capture")
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, captureBytes); err != nil {
			return err
		}
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		return syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	})
	if err != nil {
		if c.file != nil {
			c.file.Close()
		}
		return nil, fmt.Errorf("capture on %s: %w", device, err)
	}
	go c.run()
	return c, nil
}

// Close ends it. What was seen stays readable.
func (c *Capture) Close() error {
	err := c.file.Close()
	<-c.done
	return err
}

func (c *Capture) run() {
	defer close(c.done)
	b := make([]byte, 1<<16)
	for {
		n, err := c.file.Read(b)
		if errors.Is(err, syscall.ENETDOWN) {
			continue
		}
		if err != nil {
			return
		}
		s, ok := parseSegment(b[:n])
		if !ok {
			continue
		}
		c.mu.Lock()
		c.segments++
		if s.FIN || s.RST {
			c.ends = append(c.ends, s)
		}
		c.mu.Unlock()
	}
}

// Seen returns how many segments there were, and those that end a connection.
func (c *Capture) Seen() (segments int, ends []Segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.segments, append([]Segment{}, c.ends...)
}

// parseSegment reads the headers of a packet. Fragments are no segments.
func parseSegment(b []byte) (Segment, bool) {
	const fin, rst = 1, 4
	var from, to netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4 && b[9] == syscall.IPPROTO_TCP && binary.BigEndian.Uint16(b[6:])&0x3fff == 0:
		from, to = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		b = b[min(len(b), int(b[0]&15)*4):]
	case len(b) >= 40 && b[0]>>4 == 6 && b[6] == syscall.IPPROTO_TCP:
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		b = b[40:]
	}
	if !from.IsValid() || len(b) < 20 {
		return Segment{}, false
	}
	return Segment{netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])),
		b[13]&fin != 0, b[13]&rst != 0}, true
}
