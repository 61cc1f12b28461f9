package socket

import (
	"fmt"
	"syscall"

	"torpor/kernel/socket"
	"torpor/kernel/timens"
)

// UnfinishedMark is the mark (SO_MARK) of connections between Restore and Resume,
// by which rules of a firewall can keep packets from them.
const UnfinishedMark = 0x746f7270

// Restore makes the connection again in the namespace of the calling thread;
// listeners on its address do not mind. The socket is close-on-exec; the caller
// owns it. Until Resume it sends nothing, not even when it is closed, and packets
// must not reach it: a FIN would end it half made. On an error the peer was told
// nothing.
//
// Errors: EADDRNOTAVAIL, if there is such a connection already or its address
// is gone.
func Restore(s *Spec) (fd int, err error) {
	fd, err = socket.New(kind(s.domain()))
	if err != nil {
		return -1, err
	}
	if err := s.open(fd); err != nil {
		syscall.Close(fd) // in repair mode it is silent
		return -1, fmt.Errorf("restore connection %s %s: %w", s.Local, s.Remote, err)
	}
	return fd, nil
}

func (s *Spec) domain() int {
	if s.IPv6 {
		return socket.IPv6
	}
	return socket.IPv4
}

// open brings a new socket into the state. The order is the kernel's: numbers
// before the connection, options behind it, the window behind the queue.
func (s *Spec) open(fd int) error {
	if err := s.Options.Set(fd, socket.BeforeBind); err != nil {
		return err
	}
	if err := socket.SetMark(fd, UnfinishedMark); err != nil {
		return err
	}
	if err := socket.StartRepair(fd); err != nil {
		return err
	}
	if err := socket.SetSequences(fd, uint32(s.SendNext), uint32(s.ReceiveNext)-uint32(len(s.Unread))); err != nil {
		return err
	}
	if err := socket.Bind(fd, s.domain(), s.Local); err != nil {
		return err
	}
	if err := socket.ConnectRepaired(fd, s.domain(), s.Remote, uint32(s.SegmentMaximum)); err != nil {
		return err
	}
	state := s.state()
	if err := socket.SetRepair(fd, &state); err != nil {
		return err
	}
	if err := socket.FillReceived(fd, s.Unread); err != nil {
		return err
	}
	if err := socket.SetWindow(fd, state.Window); err != nil {
		return err
	}
	if err := s.Options.Unmarked().Set(fd, socket.AfterBind); err != nil {
		return err
	}
	if s.Blocking {
		if err := syscall.SetNonblock(fd, false); err != nil {
			return fmt.Errorf("let operations wait: %w", err)
		}
	}
	if len(s.Unread) > 0 { // the buffer was made larger for it
		return s.Options.Set(fd, socket.Again)
	}
	return nil
}

func (s *Spec) state() socket.RepairState {
	r := socket.RepairState{
		SegmentMaximum: uint32(s.SegmentMaximum),
		Scaling:        s.Scaling, SendScale: s.SendScale, ReceiveScale: s.ReceiveScale,
		SACK: s.SACK, Timestamps: s.Timestamps,
		Window: socket.RepairWindow{SentAt: uint32(s.Window.SentAt), Sent: s.Window.Send, Maximum: s.Window.Maximum,
			Received: s.Window.Receive, ReceivedAt: uint32(s.Window.Updated)},
	}
	if s.Timestamps {
		r.Clock = s.Clock.Now(timens.Boot())
	}
	return r
}
