package socket

import (
	"errors"
	"syscall"

	"torpor/host"
	"torpor/kernel/socket"
	"torpor/kernel/timens"
)

// Suspender reads connections of one network namespace. It is for one
// goroutine at a time. Close it.
type Suspender struct {
	defaults  map[int]*socket.Defaults // by domain
	diagnosis *socket.Diagnosis
	deafness  *socket.Deafness

	authentication bool // the kernel knows TCP-AO
}

// NewSuspender makes one for the namespace of the calling thread.
func NewSuspender() (*Suspender, error) {
	s := &Suspender{defaults: map[int]*socket.Defaults{}}
	for _, domain := range []int{socket.IPv4, socket.IPv6} {
		defaults, err := socket.ReadDefaults(kind(domain))
		if domain == socket.IPv6 && errors.Is(err, syscall.EAFNOSUPPORT) {
			continue // no IPv6 on this host
		}
		if err != nil {
			return nil, err
		}
		s.defaults[domain] = defaults
	}
	var err error
	if s.deafness, err = socket.NewDeafness(); err != nil {
		return nil, err
	}
	if s.diagnosis, err = socket.OpenDiagnosis(); err != nil {
		return nil, errors.Join(err, s.deafness.Close())
	}
	s.authentication = knowsAuthentication()
	return s, nil
}

// Close releases it.
func (s *Suspender) Close() error { return errors.Join(s.diagnosis.Close(), s.deafness.Close()) }

// knowsAuthentication asks about a socket that has no keys.
func knowsAuthentication() bool {
	fd, err := socket.New(kind(socket.IPv4))
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	_, err = socket.Authenticated(fd)
	return err == nil
}

func kind(domain int) socket.Kind {
	return socket.Kind{Domain: domain, Type: socket.Stream, Protocol: socket.TCP}
}

// Suspended is a connection that was read, or why it can not be suspended.
type Suspended struct {
	Spec *Spec // nil with an error
	Err  error // *host.Refusal, if the connection is as it was
}

// Suspend reads connections, which nobody may use meanwhile. Those without an
// error are deaf then, and closing them tells the peer nothing: the caller
// keeps the record, closes the descriptor and answers for the connection; or
// takes it back by Resume. The others are as before.
//
// Packets that arrive meanwhile are lost on the way, and their peers send them
// again. There is one wait for packets under way, some milliseconds, however
// many the connections are.
func (s *Suspender) Suspend(fds ...int) []Suspended {
	all, kinds := make([]Suspended, len(fds)), make([]socket.Kind, len(fds))
	deaf := 0
	for i, fd := range fds {
		if kinds[i], all[i].Err = s.deafen(fd); all[i].Err == nil {
			deaf++
		}
	}
	if deaf == 0 {
		return all
	}
	barrier := socket.AwaitPackets()
	for i, fd := range fds {
		if all[i].Err != nil {
			continue
		}
		if all[i].Err = barrier; barrier == nil {
			all[i].Spec, all[i].Err = s.read(fd, kinds[i])
		}
		if all[i].Err != nil {
			all[i].Err = errors.Join(all[i].Err, socket.Hear(fd))
		}
	}
	return all
}

// deafen refuses what can be told at once, and lets nothing more arrive.
func (s *Suspender) deafen(fd int) (socket.Kind, error) {
	k, err := socket.KindOf(fd)
	if err != nil {
		return k, err
	}
	if reason := unsuitable(k); reason != "" || s.defaults[k.Domain] == nil {
		return k, refuse(reason)
	}
	if reason := socket.Refused(fd, k); reason != "" {
		return k, refuse(reason)
	}
	// Now already: a deaf one does not hear the acknowledgement that it lacks.
	if _, err := acknowledged(fd); err != nil {
		return k, err
	}
	// Or the peer would send again what is only not acknowledged yet.
	if err := socket.QuickAck(fd); err != nil {
		return k, err
	}
	return k, s.deafness.Deafen(fd)
}

func unsuitable(k socket.Kind) string {
	switch {
	case k.Protocol == socket.MPTCP:
		return "several paths (MPTCP)"
	case k.Protocol != socket.TCP || !k.Internet():
		return "not a connection of TCP"
	}
	return ""
}

func refuse(reason string) error { return &host.Refusal{Reasons: []string{reason}} }

// read reads a deaf connection and leaves it in repair mode.
func (s *Suspender) read(fd int, k socket.Kind) (*Spec, error) {
	info, err := idle(fd)
	if err != nil {
		return nil, err
	}
	spec := &Spec{}
	if spec.Unread, err = socket.PeekTCP(fd); err != nil {
		return nil, err
	}
	blocking, signals, err := socket.Flags(fd)
	if err != nil {
		return nil, err
	}
	if signals {
		return nil, refuse("signals for what arrives (O_ASYNC)")
	}
	spec.Blocking = blocking
	spec.IPv6 = k.Domain == socket.IPv6
	if spec.Local, spec.Remote, err = socket.Pair(fd); err != nil {
		return nil, err
	}
	signed, err := s.diagnosis.Signed(k.Domain, spec.Local, spec.Remote)
	if err != nil {
		return nil, err
	}
	if signed {
		return nil, refuse("segments signed by a key (TCP MD5)")
	}
	if s.authentication {
		if authenticated, err := socket.Authenticated(fd); err != nil || authenticated {
			return nil, errors.Join(err, refuse("segments authenticated by keys (TCP-AO)"))
		}
	}
	spec.Key = spec.Key.unmap()
	if spec.Options, err = s.defaults[k.Domain].Differences(fd); err != nil {
		return nil, err
	}
	if err := socket.StartRepair(fd); err != nil {
		return nil, err
	}
	state, err := socket.ReadRepair(fd, info)
	if err != nil {
		return nil, errors.Join(err, socket.EndRepair(fd, spec.reuse()))
	}
	spec.setState(&state)
	return spec, nil
}

// acknowledged refuses connections that are not established, or whose peer has
// not acknowledged everything.
func acknowledged(fd int) (*socket.TCPInfo, error) {
	info, err := socket.ReadTCPInfo(fd)
	if err != nil {
		return nil, err
	}
	if info.State != socket.Established {
		return nil, refuse("state " + stateName(info.State))
	}
	if info.Unacked > 0 || info.Notsent_bytes > 0 {
		return nil, refuse("data that the peer has not acknowledged")
	}
	return info, nil
}

// idle refuses connections in a state that can not be restored.
func idle(fd int) (*socket.TCPInfo, error) {
	info, err := acknowledged(fd)
	if err != nil {
		return nil, err
	}
	events, err := socket.Poll(fd, socket.Urgent|socket.PeerClosed, 0)
	if err != nil {
		return nil, err
	}
	switch {
	case events&socket.Failed != 0:
		return nil, refuse("an error that was not read yet")
	case events&(socket.PeerClosed|socket.HungUp) != 0:
		return nil, refuse("one direction is shut down")
	case events&socket.Urgent != 0:
		return nil, refuse("urgent data")
	}
	return info, nil
}

var stateNames = []string{"?", "established", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "closed", "CLOSE-WAIT",
	"LAST-ACK", "listening", "closing", "SYN-RECEIVED"}

func stateName(state uint8) string {
	if int(state) >= len(stateNames) {
		state = 0
	}
	return stateNames[state]
}

// Resume lets a connection go on that was restored, or was suspended and not
// closed.
func Resume(fd int, spec *Spec) error {
	return errors.Join(socket.EndRepair(fd, spec.reuse()), socket.SetMark(fd, spec.Options.Mark()), socket.Hear(fd))
}

func (s *Spec) setState(r *socket.RepairState) {
	s.SendNext, s.ReceiveNext = Sequence(r.SendNext), Sequence(r.ReceiveNext)
	s.Window = Window{SentAt: Sequence(r.Window.SentAt), Send: r.Window.Sent, Maximum: r.Window.Maximum,
		Receive: r.Window.Received, Updated: Sequence(r.Window.ReceivedAt)}
	s.Scaling, s.SendScale, s.ReceiveScale = r.Scaling, r.SendScale, r.ReceiveScale
	s.SegmentMaximum = uint16(r.SegmentMaximum)
	s.SACK, s.Timestamps = r.SACK, r.Timestamps
	if r.Timestamps {
		s.Clock = Clock{Value: r.Clock, At: timens.Boot()}
	}
}

// reuse reports whether the connection had SO_REUSEADDR.
func (s *Spec) reuse() bool { return s.Options.ReuseAddress() }

// KeyOf returns the key of a connection.
func KeyOf(fd int) (Key, error) {
	local, remote, err := socket.Pair(fd)
	return Key{local, remote}.unmap(), err
}
