package inet

import "github.com/vishvananda/netlink"

// Port is where a socket waits for whoever comes.
type Port struct {
	Protocol string // tcp or udp
	Number   uint16
}

// States of net/tcp_states.h; one of UDP that has no peer is closed.
const (
	tcpListen = 10
	tcpClose  = 7
)

// Listening returns the ports that are listened on, or bound by UDP, in the
// namespace of a process, in no order.
func Listening(pid int) ([]Port, error) {
	var ports []Port
	add := func(m *netlink.Socket, protocol string, state uint8) {
		if m != nil && m.State == state && m.ID.SourcePort != 0 {
			ports = append(ports, Port{protocol, m.ID.SourcePort})
		}
	}
	err := diagnose(pid, func(h *netlink.Handle, family uint8) error {
		tcp, err := h.SocketDiagTCP(family)
		if err != nil {
			return err
		}
		for _, s := range tcp {
			add(s, "tcp", tcpListen)
		}
		udp, err := h.SocketDiagUDP(family)
		for _, s := range udp {
			add(s, "udp", tcpClose)
		}
		return err
	})
	return ports, err
}
