package inet

import (
	"net/netip"
	"time"
)

// Connection is what the kernel tells of one connection of TCP. Counters begin
// with the socket: one that was restored has new ones.
type Connection struct {
	Local, Remote netip.AddrPort // unmapped
	Established   bool           // else the peer has sent its end (CLOSE_WAIT)
	Socket        uint64         // its cookie: no two of a running kernel have the same

	Unread, Unacknowledged uint32 // bytes in the queues: received, written
	BytesIn, BytesOut      uint64 // out: without repetitions
	SegmentsIn             uint32 // with data
	SegmentsOut            uint32 // with data, without repetitions
	AcksIn, AcksOut        uint32 // segments without data
	Repeated               uint32 // segments that were sent again

	SinceIn, SinceOut time.Duration // since data was received or sent, in the kernel's ticks; says nothing without segments
	KeepAlive         bool          // the timer for probes runs
}

// States of net/tcp_states.h, and the kind of timer in struct inet_diag_msg.
const (
	tcpEstablished = 1
	tcpCloseWait   = 8

	timerKeepAlive = 2
)

// ReadConnections asks the kernel by sock_diag, once, about the established
// connections in the namespace of a process. Those whose both ends are in it
// are there twice.
func ReadConnections(pid int) ([]Connection, error) {
	var all []Connection
	err := diagnoseTCP(pid, func(message []byte) {
		if c, ok := parseConnection(message); ok {
			all = append(all, c)
		}
	})
	return all, err
}
