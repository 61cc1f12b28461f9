package object

import (
	"errors"
	"net/netip"
	"syscall"

	"torpor/kernel/socket"
)

// tcp describes a TCP socket; connections are completed by connections.
func (d *socketDescriber) tcp(i int, s *SocketSpec) error {
	fd := d.open[i].FD
	state, backlog, err := socket.TCPState(fd)
	if err != nil {
		return err
	}
	d.states[i] = state
	if s.Local, err = socket.Address(fd); err != nil {
		return err
	}
	switch state {
	case socket.Listening:
		s.State, s.Backlog = SocketListening, backlog
		return nil
	case socket.Closed:
		events, err := socket.Poll(fd, socket.PeerClosed, 0)
		if events&socket.PeerClosed != 0 { // a new socket has not
			s.State = SocketReset
			if events&socket.Failed == 0 {
				s.Shutdown = 3
			}
		}
		return err
	}
	s.State = SocketConnected
	if s.Remote, err = socket.Peer(fd); err != nil {
		return err
	}
	events, err := socket.Poll(fd, socket.PeerClosed, 0)
	switch state {
	case socket.Established:
		if events&socket.PeerClosed != 0 {
			s.Shutdown = 1
		}
	case socket.FinWait1, socket.FinWait2, socket.Closing, socket.LastAck:
		s.Shutdown = 2
	}
	return err
}

// udp describes a UDP socket. Datagrams that wait in it are lost, as any may be.
func (d *socketDescriber) udp(i int, s *SocketSpec) error {
	fd := d.open[i].FD
	var err error
	if s.Local, err = socket.Address(fd); err != nil {
		return err
	}
	if s.Remote, err = socket.Peer(fd); err != nil {
		return err
	}
	if s.Remote.IsValid() {
		s.State = SocketConnected
	}
	s.Memberships, err = socket.Memberships(fd, d.kinds[i], d.groups)
	if errors.Is(err, socket.ErrSources) {
		d.refuse(i, "a socket with %s", err)
		return nil
	}
	return err
}

// plain is an address as the other end has it, whatever its domain.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// connections finds the other ends of TCP connections among the Specs.
func (d *socketDescriber) connections() error {
	type route struct{ from, to netip.AddrPort }
	ends := map[route]int{}
	for _, i := range d.sockets {
		if s := d.specs[i].Socket; d.live(i) {
			ends[route{plain(s.Local), plain(s.Remote)}] = i
		}
	}
	for _, i := range d.sockets {
		if !d.live(i) {
			continue
		}
		s := d.specs[i].Socket
		peer, ok := ends[route{plain(s.Remote), plain(s.Local)}]
		if !ok || peer == i || d.states[i] == socket.SynSent {
			s.State, s.Reset, s.Shutdown = SocketReset, plain(s.Remote).String(), 0
			continue
		}
		s.Peer = peer
		if d.kinds[i].Protocol != socket.TCP {
			d.refuse(i, "a connection of MPTCP inside")
			continue
		}
		if err := d.unread(i, peer); err != nil {
			return err
		}
	}
	return nil
}

// live reports whether a Spec is a TCP connection.
func (d *socketDescriber) live(i int) bool {
	s := d.specs[i].Socket
	return s != nil && s.kind().Internet() && s.Type == socket.Stream && s.State == SocketConnected
}

// unread reads what one end of a connection has still to read: what it has
// received, and what waits in the other end for room.
func (d *socketDescriber) unread(i, peer int) error {
	data, err := socket.PeekTCP(d.open[i].FD)
	if err != nil {
		return err
	}
	waiting, err := socket.Unacknowledged(d.open[peer].FD)
	if err != nil {
		return err
	}
	if waiting > 0 {
		more, err := socket.Unreceived(d.open[peer].FD, d.open[i].FD)
		if err != nil {
			return err
		}
		data = append(data, more...)
	}
	if len(data) > 0 {
		d.specs[i].Socket.Unread = [][]byte{data}
	}
	return d.contents.add(d.describer, i, "a connection", int64(len(data)))
}

// join makes a connection between two Specs.
func (m *maker) join(i, peer int) error {
	a, b := m.specs[i].Socket, m.specs[peer].Socket
	return socket.Join(socket.Ends{
		FDs:     [2]int{m.fds[i], m.fds[peer]},
		Domains: [2]int{a.Domain, b.Domain},
		Locals:  [2]netip.AddrPort{m.endpoint(a.Local), m.endpoint(b.Local)},
	})
}

// reset makes a socket whose peer has reset the connection. One that had seen
// that before gives the end of the stream.
func (m *maker) reset(i int) error {
	s := m.specs[i].Socket
	if m.resetter == nil {
		var err error
		if m.resetter, err = socket.NewResetter(); err != nil {
			return err
		}
	}
	if err := m.resetter.Reset(m.fds[i], s.Domain); err != nil {
		return err
	}
	options := s.Options.Readdressed(m.readdressed)
	if err := errors.Join(options.Set(m.fds[i], socket.Again), options.Set(m.fds[i], socket.AfterBind)); err != nil {
		return err
	}
	if s.Shutdown != 0 {
		return ignore(socket.TakeError(m.fds[i]), syscall.ECONNRESET)
	}
	return nil
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
