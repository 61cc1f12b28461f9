package inet

import (
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
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
	err := diagnose(pid, func(h *netlink.Handle, family uint8) error {
		sockets, err := h.SocketDiagTCPInfo(family)
		for _, s := range sockets {
			if c, ok := connection(s); ok {
				all = append(all, c)
			}
		}
		return err
	})
	return all, err
}

func connection(s *netlink.InetDiagTCPInfoResp) (Connection, bool) {
	m, i := s.InetDiagMsg, s.TCPInfo
	if m == nil || i == nil || m.State != tcpEstablished && m.State != tcpCloseWait {
		return Connection{}, false
	}
	return Connection{
		Local: addrPort(m.ID.Source, m.ID.SourcePort), Remote: addrPort(m.ID.Destination, m.ID.DestinationPort),
		Established: m.State == tcpEstablished,
		Socket:      uint64(m.ID.Cookie[1])<<32 | uint64(m.ID.Cookie[0]),
		Unread:      m.RQueue, Unacknowledged: m.WQueue,
		BytesIn: i.Bytes_received, BytesOut: i.Bytes_sent - i.Bytes_retrans,
		SegmentsIn: i.Data_segs_in, SegmentsOut: i.Data_segs_out - i.Total_retrans,
		AcksIn: i.Segs_in - i.Data_segs_in, AcksOut: i.Segs_out - i.Data_segs_out, Repeated: i.Total_retrans,
		SinceIn: time.Duration(i.Last_data_recv) * time.Millisecond, SinceOut: time.Duration(i.Last_data_sent) * time.Millisecond,
		KeepAlive: m.Timer == timerKeepAlive,
	}, true
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
