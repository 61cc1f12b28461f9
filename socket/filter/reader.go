package filter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"torpor/kernel/nfqueue"
	"torpor/kernel/timens"
	"torpor/socket"
	"torpor/socket/segment"
)

// reader sees to the packets of one queue. Its fields are its goroutine's, but
// for the first.
type reader struct {
	inHand sync.Mutex // held from before Find to behind the verdict

	filter  *Filter
	queue   *nfqueue.Queue
	limiter limiter
	zones   map[uint32]string // names of devices by index
	answer  [segment.AnswerBytes]byte
}

// newReader makes the reader of a queue, with its share of the answers.
func newReader(f *Filter, q *nfqueue.Queue) *reader {
	share := func(rate int) float64 { return max(1, float64(rate)/float64(f.config.Queues)) }
	return &reader{filter: f, queue: q, limiter: newLimiter(share(f.config.ProbeRate), share(f.config.ChallengeRate), timens.Boot())}
}

// run reads until the queue is stopped.
func (r *reader) run() error {
	for {
		p, err := r.queue.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		r.decide(p)
	}
}

func (r *reader) decide(p nfqueue.Packet) {
	r.inHand.Lock()
	defer r.inHand.Unlock()
	r.filter.tally.packets.Add(1)
	give := r.queue.Drop
	if r.passes(p) {
		give = r.queue.Accept
	}
	if err := give(p.ID); err != nil {
		r.filter.tally.failed(err)
	}
}

// passes sees to a packet and reports whether the kernel shall have it.
func (r *reader) passes(p nfqueue.Packet) bool {
	t := &r.filter.tally
	seg, err := segment.Parse(p.Bytes, p.LenBytes)
	if err != nil {
		t.passed.Add(1)
		return true
	}
	if p.Leaving {
		seg.Local, seg.Remote = seg.Remote, seg.Local
	}
	r.addZone(&seg, p.Device)
	spec, suspended := r.filter.config.Handler.Find(seg.Key)
	if !suspended {
		t.passed.Add(1)
		return true
	}
	if p.Leaving {
		t.silenced.Add(1)
		return false
	}
	now := timens.Boot()
	d := segment.Judge(spec, &seg, now)
	switch d.Reason {
	case segment.Challenge, segment.Unsent, segment.Outside, segment.NoACK:
		t.refused.Add(1)
	}
	switch d.Action {
	case segment.Wake:
		return r.wake(seg.Key, d.Reason)
	case segment.Reply:
		r.reply(&d, p.Device, now)
	case segment.Update:
		r.filter.config.Handler.Update(seg.Key, d.Window)
		t.updates.Add(1)
	default:
		t.dropped.Add(1)
	}
	return false
}

func (r *reader) wake(k socket.Key, why segment.Reason) bool {
	t := &r.filter.tally
	err := r.filter.namespace.Do(func() error { return r.filter.config.Handler.Wake(k, why) })
	if err != nil {
		t.wakeErrors.Add(1)
		t.failed(fmt.Errorf("wake connection of %s: %w", k.Remote, err))
		return false
	}
	t.woken.Add(1)
	return true
}

func (r *reader) reply(d *segment.Decision, device uint32, now time.Duration) {
	t := &r.filter.tally
	if !r.limiter.allows(d.Answer.Key, d.Reason == segment.Probe, now) {
		t.limited.Add(1)
		return
	}
	if err := r.filter.sender.Send(d.Answer.AppendTo(r.answer[:0]), d.Answer.Remote.Addr(), device); err != nil {
		t.sendErrors.Add(1)
		t.failed(err)
		return
	}
	t.answered.Add(1)
}

// addZone names the device of addresses that mean something only with it, as
// the addresses of sockets do.
func (r *reader) addZone(seg *segment.Segment, device uint32) {
	for _, a := range []*netip.AddrPort{&seg.Local, &seg.Remote} {
		if addr := a.Addr(); addr.Is6() && addr.IsLinkLocalUnicast() {
			*a = netip.AddrPortFrom(addr.WithZone(r.zone(device)), a.Port())
		}
	}
}

func (r *reader) zone(index uint32) string {
	if name, ok := r.zones[index]; ok {
		return name
	}
	name := fmt.Sprint(index)
	err := r.filter.namespace.Do(func() error {
		device, err := net.InterfaceByIndex(int(index))
		if err == nil {
			name = device.Name
		}
		return err
	})
	if err != nil {
		r.filter.tally.failed(err)
		return name
	}
	if r.zones == nil {
		r.zones = map[uint32]string{}
	}
	r.zones[index] = name
	return name
}
