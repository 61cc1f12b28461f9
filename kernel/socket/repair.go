package socket

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// RepairState is what TCP_REPAIR reads and sets of an established connection,
// and TCP_INFO says of it.
type RepairState struct {
	SendNext, ReceiveNext   uint32
	SegmentMaximum          uint32 // that the peer announced
	Scaling                 bool
	SendScale, ReceiveScale uint8
	SACK, Timestamps        bool
	Clock                   uint32 // of timestamps; the lowest bit says that it counts microseconds
	Window                  RepairWindow
}

// RepairWindow is struct tcp_repair_window of linux/tcp.h, in bytes.
type RepairWindow struct{ SentAt, Sent, Maximum, Received, ReceivedAt uint32 }

// StartRepair puts a connection into repair mode: closing it tells the peer
// nothing. It needs CAP_NET_ADMIN. EndRepair undoes it.
func StartRepair(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOn); err != nil {
		return fmt.Errorf("start repair of connection: %w", err)
	}
	return nil
}

// EndRepair leaves repair mode without telling the peer. The kernel forgets
// SO_REUSEADDR; reuse is what it shall be.
func EndRepair(fd int, reuse bool) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOffQuietly)
	if err == nil && reuse {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return fmt.Errorf("end repair of connection: %w", err)
	}
	return nil
}

// The bits of tcpi_options.
const (
	infoTimestamps = 1
	infoSACK       = 2
	infoScaling    = 4
)

// ReadRepair reads a connection in repair mode. info is its TCP_INFO.
func ReadRepair(fd int, info *TCPInfo) (RepairState, error) {
	r := RepairState{
		SACK: info.Options&infoSACK != 0, Timestamps: info.Options&infoTimestamps != 0, Scaling: info.Options&infoScaling != 0,
	}
	if r.Scaling {
		r.SendScale, r.ReceiveScale = scales(info)
	}
	var err error
	for _, read := range []func() error{
		func() (err error) { r.SendNext, err = sequence(fd, sendQueue); return },
		func() (err error) { r.ReceiveNext, err = sequence(fd, receiveQueue); return },
		func() (err error) { r.SegmentMaximum, err = getUint32(fd, unix.TCP_MAXSEG); return },
		func() (err error) { r.Window, err = getWindow(fd); return },
	} {
		if err = read(); err != nil {
			return r, fmt.Errorf("read state of connection: %w", err)
		}
	}
	if r.Timestamps {
		if r.Clock, err = getUint32(fd, unix.TCP_TIMESTAMP); err != nil {
			return r, fmt.Errorf("read clock of connection: %w", err)
		}
		if r.Clock&1 != 0 && !countsMicroseconds() {
			r.Clock++
		}
	}
	return r, nil
}

func getUint32(fd, name int) (uint32, error) {
	n, err := getInt(fd, unix.IPPROTO_TCP, name)
	return uint32(n), err
}

// SetSequences sets the next numbers to send and to receive. It comes before
// the connection is made.
func SetSequences(fd int, send, receive uint32) error {
	for _, q := range [2]struct {
		queue int
		value uint32
	}{{sendQueue, send}, {receiveQueue, receive}} {
		if err := selectQueue(fd, q.queue); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(q.value)); err != nil {
			return fmt.Errorf("set sequence number: %w", err)
		}
	}
	return nil
}

func selectQueue(fd, queue int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return fmt.Errorf("select queue of connection: %w", err)
	}
	return nil
}

// SetRepair gives a connection that was just made in repair mode the rest of
// its state.
func SetRepair(fd int, r *RepairState) error {
	options := make([]unix.TCPRepairOpt, 0, 4)
	options = append(options, unix.TCPRepairOpt{Code: unix.TCPOPT_MAXSEG, Val: r.SegmentMaximum})
	if r.Scaling {
		options = append(options, unix.TCPRepairOpt{Code: unix.TCPOPT_WINDOW, Val: uint32(r.SendScale) | uint32(r.ReceiveScale)<<16})
	}
	if r.SACK {
		options = append(options, unix.TCPRepairOpt{Code: unix.TCPOPT_SACK_PERMITTED})
	}
	if r.Timestamps {
		options = append(options, unix.TCPRepairOpt{Code: unix.TCPOPT_TIMESTAMP})
	}
	if err := unix.SetsockoptTCPRepairOpt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, options); err != nil {
		return fmt.Errorf("set options of connection: %w", err)
	}
	if r.Timestamps {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, int(r.Clock)); err != nil {
			return fmt.Errorf("set clock of connection: %w", err)
		}
	}
	return nil
}

// Limits of TCP_MAXSEG.
const (
	leastSegment = 88
	mostSegment  = 32767
)

// ConnectRepaired makes a connection in repair mode. The kernel computes the
// size of segments in that moment, from the least that a peer can announce
// unless the socket has a maximum of its own, and would not again before the MTU
// changes.
func ConnectRepaired(fd, domain int, to netip.AddrPort, segmentMaximum uint32) error {
	if err := setMaximum(fd, int(min(max(segmentMaximum, leastSegment), mostSegment))); err != nil {
		return err
	}
	if err := Connect(fd, domain, to); err != nil {
		return err
	}
	return setMaximum(fd, 0)
}

func setMaximum(fd, lenBytes int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, lenBytes); err != nil {
		return fmt.Errorf("set size of segments: %w", err)
	}
	return nil
}

// SetWindow sets the windows of a connection in repair mode. It comes after its
// queues are filled.
func SetWindow(fd int, w RepairWindow) error {
	if err := setWindow(fd, w); err != nil {
		return fmt.Errorf("set window of connection: %w", err)
	}
	return nil
}

// chunkBytes is how much is written at once into a receive queue: one
// allocation of the kernel.
const chunkBytes = 32 << 10

// FillReceived writes into the receive queue of a connection in repair mode, as
// if the peer had sent it.
func FillReceived(fd int, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := selectQueue(fd, receiveQueue); err != nil {
		return err
	}
	if len(b) > chunkBytes {
		if err := setBuffer(fd, unix.SO_RCVBUF, 2*len(b)); err != nil {
			return fmt.Errorf("fill receive queue: %w", err)
		}
		if err := freeBuffer(fd, receiveBufferLock); err != nil {
			return err
		}
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(fd, b[:min(len(b), chunkBytes)], nil, nil, 0)
		if err != nil {
			return fmt.Errorf("fill receive queue: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// AwaitPackets waits until no processor works on a packet that it took before:
// packets are received inside of read-side critical sections of RCU, and
// MEMBARRIER_CMD_GLOBAL waits for a grace period.
func AwaitPackets() error {
	const global = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return fmt.Errorf("wait for packets under way: %w", errno)
	}
	return nil
}

// countsMicroseconds reports whether the lowest bit of TCP_TIMESTAMP says that
// the clock counts microseconds (since Linux 6.7); before, it was a bit of the
// value. It tries with a clock of its own.
var countsMicroseconds = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if StartRepair(fd) != nil || unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, 1) != nil {
		return false
	}
	time.Sleep(2 * time.Millisecond)
	value, err := getUint32(fd, unix.TCP_TIMESTAMP)
	return err == nil && value >= 1000
})

// QuickAck sends the acknowledgement that the kernel has put off, if there is
// one.
func QuickAck(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// Pair are the addresses of both ends of a connection.
func Pair(fd int) (local, remote netip.AddrPort, err error) {
	if local, err = Address(fd); err != nil {
		return local, remote, err
	}
	remote, err = Peer(fd)
	return local, remote, err
}

// Repairing reports whether a TCP socket is in repair mode.
func Repairing(fd int) (bool, error) {
	on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR)
	if err != nil {
		return false, fmt.Errorf("read repair mode: %w", err)
	}
	return on != 0, nil
}
