package segment

import (
	"time"

	"torpor/socket"
)

// judgement is a segment beside what is known of its connection.
type judgement struct {
	spec   *socket.Spec
	seg    *Segment
	window uint32 // what this end is ready to receive, counted from ReceiveNext
	boot   time.Duration
}

// Judge decides what is to be done with a segment of a suspended connection;
// boot is the time of CLOCK_BOOTTIME. It does not keep spec or seg.
func Judge(spec *socket.Spec, seg *Segment, boot time.Duration) Decision {
	j := judgement{spec, seg, receiveWindow(spec), boot}
	switch {
	case seg.Flags.Has(RST):
		return j.reset()
	case seg.Flags.Has(SYN):
		return j.reply(Challenge)
	case !seg.Flags.Has(ACK):
		return Decision{Reason: NoACK}
	case !seg.next().After(spec.ReceiveNext) && seg.Seq != spec.ReceiveNext:
		return j.old()
	case !j.acceptable():
		return j.outside()
	case seg.Ack.After(spec.SendNext) || (spec.SendNext - socket.Sequence(spec.Window.Maximum)).After(seg.Ack):
		return j.reply(Unsent)
	case seg.Flags.Has(URG):
		return Decision{Action: Wake, Reason: Urgent}
	case seg.DataBytes > 0:
		return Decision{Action: Wake, Reason: Data}
	case seg.Flags.Has(FIN):
		return Decision{Action: Wake, Reason: End}
	}
	return j.acknowledgement()
}

// receiveWindow is tcp_receive_window of net/tcp.h.
func receiveWindow(spec *socket.Spec) uint32 {
	edge := spec.Window.Updated + socket.Sequence(spec.Window.Receive)
	if !edge.After(spec.ReceiveNext) {
		return 0
	}
	return uint32(edge - spec.ReceiveNext)
}

// edge is the first sequence number behind the window.
func (j *judgement) edge() socket.Sequence {
	return j.spec.ReceiveNext + socket.Sequence(j.window)
}

// reset believes a RST at exactly the next byte only; peers answer a challenge
// with such a one (RFC 5961, section 3.2).
func (j *judgement) reset() Decision {
	switch seq := j.seg.Seq; {
	case seq == j.spec.ReceiveNext:
		return Decision{Action: Wake, Reason: Reset}
	case seq.After(j.spec.ReceiveNext) && !seq.After(j.edge()):
		return j.reply(Challenge)
	}
	return Decision{Reason: Outside}
}

// old answers what was received before. A keepalive is one byte of it, which
// need not be there; so are Linux's probes of a closed window.
func (j *judgement) old() Decision {
	if j.seg.Seq == j.spec.ReceiveNext-1 && j.seg.DataBytes <= 1 && !j.seg.Flags.Has(FIN) && j.seg.Ack == j.spec.SendNext {
		return j.reply(Probe)
	}
	return j.reply(Old)
}

// acceptable is for segments that are not old. What begins in the window counts
// as a whole: the kernel cuts off the rest.
func (j *judgement) acceptable() bool {
	seq := j.seg.Seq
	if j.seg.next() == seq {
		return !seq.After(j.edge())
	}
	if j.window == 0 { // Linux takes a bare FIN nevertheless (tcp_data_queue)
		return seq == j.spec.ReceiveNext && j.seg.DataBytes == 0
	}
	return j.edge().After(seq)
}

// outside answers what is not in the window. Other systems than Linux probe a
// closed window by the next byte.
func (j *judgement) outside() Decision {
	if j.window == 0 && j.seg.Seq == j.spec.ReceiveNext && j.seg.DataBytes == 1 && j.seg.Ack == j.spec.SendNext {
		return j.reply(Probe)
	}
	return j.reply(Outside)
}

// acknowledgement is for segments without data. When the peer's window changes
// is tcp_may_update_window of net/ipv4/tcp_input.c; there is nothing to
// acknowledge.
func (j *judgement) acknowledgement() Decision {
	if j.seg.Ack != j.spec.SendNext {
		return Decision{Reason: Nothing}
	}
	size := uint32(j.seg.Window)
	if j.spec.Scaling {
		size <<= j.spec.SendScale
	}
	w := j.spec.Window
	newer := j.seg.Seq.After(w.SentAt) || j.seg.Seq == w.SentAt && (size > w.Send || size == 0)
	if !newer || size == w.Send {
		return Decision{Reason: Nothing}
	}
	w.SentAt, w.Send, w.Maximum = j.seg.Seq, size, max(w.Maximum, size)
	return Decision{Action: Update, Reason: WindowChange, Window: w}
}

// reply tells the peer where this end is.
func (j *judgement) reply(why Reason) Decision {
	scale := uint8(0)
	if j.spec.Scaling {
		scale = j.spec.ReceiveScale
	}
	a := Answer{
		Key: j.seg.Key, Seq: j.spec.SendNext, Ack: j.spec.ReceiveNext,
		Window:       uint16(min(j.window>>scale, 1<<16-1)),
		TrafficClass: trafficClass(j.spec, j.seg.Local.Addr().Is4()),
	}
	if j.spec.Timestamps {
		a.Timestamps, a.Timestamp, a.Echo = true, j.spec.Clock.Now(j.boot), j.seg.Timestamp
	}
	return Decision{Action: Reply, Reason: why, Answer: a}
}

// Levels and names of options, from linux/in.h and linux/in6.h.
const (
	levelIPv4, optionTOS   = 0, 1
	levelIPv6, optionClass = 41, 67
)

// congestionBits are those of ECN in the traffic class; they are not the
// application's.
const congestionBits = 3

func trafficClass(spec *socket.Spec, v4 bool) uint8 {
	level, name := levelIPv6, optionClass
	if v4 {
		level, name = levelIPv4, optionTOS
	}
	for i := range spec.Options {
		if o := &spec.Options[i]; o.Level == level && o.Name == name && len(o.Value) > 0 {
			return o.Value[0] &^ congestionBits
		}
	}
	return 0
}
