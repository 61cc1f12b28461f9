package object

import (
	"errors"
	"fmt"
	"syscall"

	"torpor/kernel/socket"
	"torpor/kernel/visit"
)

// socketDescriber describes the sockets of a Describe together: they may be
// connected to each other. It runs in the container's network namespace.
type socketDescriber struct {
	*describer
	namespace uint64
	kinds     map[int]socket.Kind // by index of Spec
	states    map[int]int         // of TCP
	defaults  map[socket.Kind]socket.Options
	unixes    socket.Unixes
	groups    []socket.Membership
}

func (d *describer) describeSockets() error {
	if len(d.sockets) == 0 {
		return nil
	}
	return visit.Do(d.container.PID, visit.Network, func() error {
		s := &socketDescriber{describer: d, kinds: map[int]socket.Kind{}, states: map[int]int{}, defaults: map[socket.Kind]socket.Options{}}
		return s.run()
	})
}

func (d *socketDescriber) run() error {
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return fmt.Errorf("read own network namespace: %w", err)
	}
	d.namespace = st.Ino
	var err error
	if d.unixes, err = socket.ListUnix(); err != nil {
		return err
	}
	if d.groups, err = socket.Groups(); err != nil {
		return err
	}
	for _, i := range d.sockets {
		if err := d.one(i); err != nil {
			return fmt.Errorf("describe %s %s: %w", d.open[i].Target, d.open[i].where(), err)
		}
	}
	if err := d.connections(); err != nil {
		return err
	}
	return d.unixPeers()
}

// one describes a socket but for the other end of its connection.
func (d *socketDescriber) one(i int) error {
	fd := d.open[i].FD
	kind, err := socket.KindOf(fd)
	if err != nil {
		return err
	}
	if what := refusedSocket(kind); what != "" {
		d.refuse(i, "%s", what)
		return nil
	}
	namespace, err := socket.Namespace(fd)
	if err != nil {
		return err
	}
	if namespace != d.namespace {
		d.refuse(i, "a socket of another network namespace")
		return nil
	}
	if what := socket.Refused(fd, kind); what != "" {
		d.refuse(i, "a socket with %s", what)
		return nil
	}
	d.kinds[i] = kind
	s := &SocketSpec{Domain: kind.Domain, Type: kind.Type, Protocol: kind.Protocol, State: SocketIdle, Peer: -1}
	d.specs[i].Kind, d.specs[i].Socket = KindSocket, s
	switch {
	case kind.Domain == socket.Unix:
		err = d.unix(i, s)
	case kind.Domain == socket.Netlink:
		s.Port, s.Groups, err = socket.NetlinkAddress(fd)
	case kind.Type == socket.Stream:
		err = d.tcp(i, s)
	default:
		err = d.udp(i, s)
	}
	if err != nil {
		return err
	}
	return d.options(i, s)
}

// options notes what differs from a fresh socket of this namespace.
func (d *socketDescriber) options(i int, s *SocketSpec) error {
	kind, connected := d.kinds[i], s.State == SocketConnected || s.State == SocketReset
	defaults, ok := d.defaults[kind]
	if !ok {
		fresh, err := socket.New(kind)
		if err != nil {
			return err
		}
		defaults, err = socket.Read(fresh, kind, false)
		if err := errors.Join(err, syscall.Close(fresh)); err != nil {
			return err
		}
		d.defaults[kind] = defaults
	}
	options, err := socket.Read(d.open[i].FD, kind, connected)
	s.Options = options.Without(defaults)
	return err
}

// netlinkProtocols are those whose sockets have no state but groups:
// NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC.
var netlinkProtocols = map[int]bool{0: true, 4: true, 15: true, 16: true}

// refusedSocket names kinds of sockets that are not made again; "": it is.
func refusedSocket(k socket.Kind) string {
	switch {
	case k.Domain == socket.Netlink && netlinkProtocols[k.Protocol]:
		return ""
	case k.Domain == socket.Netlink:
		return fmt.Sprintf("a netlink socket of protocol %d", k.Protocol)
	case k.Domain == socket.Unix:
		return ""
	case k.Internet() && k.Type == socket.Raw:
		return "a raw socket"
	case k.Internet() && k.Type == socket.Stream && (k.Protocol == socket.TCP || k.Protocol == socket.MPTCP):
		return ""
	case k.Internet() && k.Type == socket.Datagram && k.Protocol == socket.UDP:
		return ""
	case k.Internet():
		return fmt.Sprintf("a socket of IP protocol %d", k.Protocol)
	case k.Domain == syscall.AF_PACKET:
		return "a packet socket"
	case k.Domain == afVsock:
		return "a vsock socket"
	}
	return fmt.Sprintf("a socket of domain %d", k.Domain)
}

// afVsock is AF_VSOCK, which package syscall lacks.
const afVsock = 40

// kind is what the socket is made as.
func (s *SocketSpec) kind() socket.Kind {
	return socket.Kind{Domain: s.Domain, Type: s.Type, Protocol: s.Protocol}
}

// mutual reports whether a socket and its peer have each other.
func (m *maker) mutual(i int) bool {
	peer := m.specs[i].Socket.Peer
	return peer >= 0 && m.specs[peer].Socket.Peer == i
}

// makeSocket makes a socket with its address. Ends of pairs come with connect:
// the other end, too, has to be there.
func (m *maker) makeSocket(i int) (err error) {
	s := m.specs[i].Socket
	if s.Domain == socket.Unix && (m.mutual(i) || s.State == SocketReset) {
		return nil
	}
	if m.fds[i], err = socket.New(s.kind()); err != nil {
		return err
	}
	if s.State == SocketReset {
		return nil // its options could be in the way
	}
	fd, options := m.fds[i], s.Options.Readdressed(m.readdressed)
	if err := options.Set(fd, socket.BeforeBind); err != nil {
		return err
	}
	if m.mutual(i) {
		return nil
	}
	if err := m.bind(fd, s); err != nil {
		return err
	}
	if err := options.Set(fd, socket.AfterBind); err != nil {
		return err
	}
	for _, group := range s.Memberships {
		if err := socket.JoinGroup(fd, group); err != nil {
			return err
		}
	}
	if s.State != SocketListening {
		return nil
	}
	return socket.Listen(fd, s.Backlog)
}

// bind gives a socket its address, if it has one.
func (m *maker) bind(fd int, s *SocketSpec) error {
	switch {
	case s.Domain == socket.Netlink:
		return socket.BindNetlink(fd, s.Port, s.Groups)
	case s.Domain == socket.Unix:
		return s.bindName(fd)
	case !s.Local.IsValid() || s.Local.Port() == 0:
		return nil
	}
	return socket.Bind(fd, s.Domain, m.endpoint(s.Local))
}

// connect connects what has, or had, another end.
func (m *maker) connect(i int) error {
	s := m.specs[i].Socket
	if m.specs[i].Kind != KindSocket {
		return nil
	}
	switch {
	case s.Domain == socket.Unix:
		return m.connectUnix(i)
	case s.State == SocketReset:
		return m.reset(i)
	case s.State != SocketConnected:
		return nil
	case s.Type == socket.Datagram:
		return socket.Connect(m.fds[i], s.Domain, m.endpoint(s.Remote))
	case s.Peer > i:
		return m.join(i, s.Peer)
	}
	return nil
}

// fill sends again what was not read, and ends what was ended.
func (m *maker) fill(i int) error {
	spec := &m.specs[i]
	if spec.Kind != KindSocket || spec.Socket.State == SocketReset {
		return nil
	}
	s := spec.Socket
	switch {
	case m.mutual(i):
		if err := socket.Send(m.fds[s.Peer], s.Type, s.Unread); err != nil {
			return err
		}
		if s.Protocol == socket.TCP && len(s.Unread) > 0 {
			if _, err := socket.Poll(m.fds[i], socket.Readable, arrivalMs); err != nil {
				return err
			}
		}
		if s.Peer > i {
			return nil // its other end has not been filled yet
		}
		return errors.Join(m.end(i), m.end(s.Peer))
	case len(s.Unread) > 0:
		return m.sendFromNobody(i)
	}
	return nil
}

// arrivalMs bounds the wait for data on its way over the loopback device.
const arrivalMs = 1000

// end shuts a connected socket down as it was, and sets what could be in the
// way of filling it.
func (m *maker) end(i int) error {
	s := m.specs[i].Socket
	options := s.Options.Readdressed(m.readdressed)
	if err := options.Set(m.fds[i], socket.Again); err != nil {
		return err
	}
	if err := options.Set(m.fds[i], socket.AfterBind); err != nil {
		return err
	}
	return socket.Shutdown(m.fds[i], s.Shutdown)
}
