package socket

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCPInfo is struct tcp_info of linux/tcp.h.
type TCPInfo = unix.TCPInfo

// ReadTCPInfo asks a TCP socket.
func ReadTCPInfo(fd int) (*TCPInfo, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return nil, fmt.Errorf("read state of connection: %w", err)
	}
	return info, nil
}

// TCPState returns the state of a TCP socket and, of a listening one, its
// backlog.
func TCPState(fd int) (state, backlog int, err error) {
	info, err := ReadTCPInfo(fd)
	if err != nil {
		return 0, 0, err
	}
	return int(info.State), int(info.Sacked), nil
}

// Unacknowledged returns how many sent bytes the peer has not acknowledged.
func Unacknowledged(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0, fmt.Errorf("read send queue: %w", err)
	}
	return n, nil
}

// repairOffQuietly is TCP_REPAIR_OFF_NO_WP: without a probe of the window.
const repairOffQuietly = -1

const repairOn = 1

// The queues of TCP_REPAIR_QUEUE.
const (
	receiveQueue = 1
	sendQueue    = 2
)

// repairing runs f while a socket is in repair mode, which makes the kernel
// forget SO_REUSEADDR.
func repairing(fd int, f func() error) (err error) {
	reuse, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	if err != nil {
		return err
	}
	if err := StartRepair(fd); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, EndRepair(fd, reuse != 0)) }()
	return f()
}

// sequence returns the sequence number behind a queue: of the next byte to be
// written, or to be received.
func sequence(fd, queue int) (uint32, error) {
	if err := selectQueue(fd, queue); err != nil {
		return 0, err
	}
	return getUint32(fd, unix.TCP_QUEUE_SEQ)
}

// Unreceived returns the bytes that one end of a connection has sent and the
// other end, also in this namespace, has not received yet. Nobody may use
// either meanwhile.
func Unreceived(from, to int) ([]byte, error) {
	var received, written uint32
	var unacked []byte
	err := repairing(to, func() (err error) {
		received, err = sequence(to, receiveQueue)
		return err
	})
	if err == nil {
		err = repairing(from, func() (err error) {
			if written, err = sequence(from, sendQueue); err != nil {
				return err
			}
			unacked, err = peekSent(from)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read send queue: %w", err)
	}
	return behind(unacked, written, received)
}

// peekSent reads the send queue of a socket in repair mode.
func peekSent(fd int) ([]byte, error) {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n == 0 {
		return nil, err
	}
	b := make([]byte, n)
	got, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return b[:max(got, 0)], err
}

// behind cuts off what was received. A FIN has a sequence number and no byte.
func behind(unacked []byte, written, received uint32) ([]byte, error) {
	left := int32(written - received)
	if left <= 0 {
		return nil, nil
	}
	if int(left) > len(unacked)+1 {
		return nil, fmt.Errorf("read send queue: %d bytes of %d: %w", len(unacked), left, unix.EIO)
	}
	return unacked[max(0, len(unacked)-int(left)):], nil
}

// Ends are the two ends of a TCP connection that is made without a handshake.
type Ends struct {
	FDs            [2]int // new sockets
	Domains        [2]int
	Locals         [2]netip.AddrPort
	sequences      [2]uint32
	segmentMaximum uint32
}

// windowScale is what both ends shift window sizes by.
const windowScale = 7

// Join makes a live connection of two new sockets of one namespace. A listening
// socket on one of the addresses does not mind. Its loopback device must be up.
func Join(e Ends) error {
	e.sequences = [2]uint32{1 << 20, 2 << 20} // any
	e.segmentMaximum = 65400                  // as much as the loopback device takes, for the kernel to lower
	for i, fd := range e.FDs {
		if err := StartRepair(fd); err != nil {
			return err
		}
		if err := e.open(i); err != nil {
			return fmt.Errorf("repair connection from %s to %s: %w", e.Locals[i], e.Locals[1-i], err)
		}
	}
	for i, fd := range e.FDs {
		if err := openWindow(fd, e.FDs[1-i]); err != nil {
			return fmt.Errorf("repair connection: open window: %w", err)
		}
	}
	for _, fd := range e.FDs {
		if err := EndRepair(fd, false); err != nil {
			return err
		}
	}
	return nil
}

// open brings one end into its state.
func (e *Ends) open(i int) error {
	fd := e.FDs[i]
	if err := SetSequences(fd, e.sequences[i], e.sequences[1-i]); err != nil {
		return err
	}
	if err := Bind(fd, e.Domains[i], e.Locals[i]); err != nil {
		return err
	}
	if err := ConnectRepaired(fd, e.Domains[i], e.Locals[1-i], e.segmentMaximum); err != nil {
		return err
	}
	return SetRepair(fd, &RepairState{SegmentMaximum: e.segmentMaximum, Scaling: true, SendScale: windowScale, ReceiveScale: windowScale, SACK: true})
}

// openWindow lets the end of a connection send what the other end is ready to
// receive. Both are in repair mode.
func openWindow(fd, other int) error {
	mine, err := getWindow(fd)
	if err != nil {
		return err
	}
	theirs, err := getWindow(other)
	if err != nil {
		return err
	}
	mine.Sent, mine.Maximum, mine.SentAt = theirs.Received, theirs.Received, mine.ReceivedAt
	return setWindow(fd, mine)
}
