package segment

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	ksocket "torpor/kernel/socket"
	"torpor/socket"
)

// spec is a connection whose numbers wrap around within the window.
func spec() *socket.Spec {
	return &socket.Spec{
		Key:      socket.Key{Local: netip.MustParseAddrPort("192.0.2.1:80"), Remote: netip.MustParseAddrPort("192.0.2.2:4000")},
		SendNext: 5000, ReceiveNext: 0xffffff00,
		Window:  socket.Window{SentAt: 0xfffffef0, Send: 64000, Maximum: 65000, Receive: 0x1000 + 16, Updated: 0xfffffef0},
		Scaling: true, SendScale: 3, ReceiveScale: 4,
		Timestamps: true, Clock: socket.Clock{Value: 1000, At: time.Second},
		Options: ksocket.Options{{Level: levelIPv4, Name: optionTOS, Value: []byte{0x13}}},
	}
}

// segment is one of the connection: offset is that from ReceiveNext.
func segment(s *socket.Spec, flags Flags, offset, dataBytes int) *Segment {
	return &Segment{Key: s.Key, Seq: s.ReceiveNext + socket.Sequence(offset), Ack: s.SendNext, Flags: flags, Window: 8000,
		DataBytes: dataBytes, HasTimestamps: true, Timestamp: 77, Echo: 1000}
}

func TestJudge(t *testing.T) {
	const window = 0x1000
	closed := func(s *socket.Spec, _ *Segment) { s.Window.Receive = 16 }
	ack := func(offset int) func(*socket.Spec, *Segment) {
		return func(s *socket.Spec, seg *Segment) { seg.Ack = s.SendNext + socket.Sequence(offset) }
	}
	announce := func(size uint16) func(*socket.Spec, *Segment) {
		return func(_ *socket.Spec, seg *Segment) { seg.Window = size }
	}
	for _, c := range []struct {
		name              string
		flags             Flags
		offset, dataBytes int
		change            func(*socket.Spec, *Segment)
		action            Action
		reason            Reason
	}{
		{"next data", ACK | PSH, 0, 10, nil, Wake, Data},
		{"next data, joined", ACK, 0, 200000, nil, Wake, Data},
		{"data across the old", ACK, -5, 6, nil, Wake, Data},
		{"data out of order", ACK, 100, 10, nil, Wake, Data},
		{"last byte of the window", ACK, window - 1, 1, nil, Wake, Data},
		{"data with an older ACK", ACK, 0, 1, ack(-65000), Wake, Data},
		{"data with FIN", ACK | FIN, 0, 1, nil, Wake, Data},
		{"data behind the window", ACK, window, 1, nil, Reply, Outside},
		{"data far away", ACK, 1 << 30, 1, nil, Reply, Outside},
		{"data far behind", ACK, -(1 << 30), 1, nil, Reply, Old},
		{"data repeated", ACK, -100, 100, nil, Reply, Old},
		{"data that acknowledges the unsent", ACK, 0, 1, ack(1), Reply, Unsent},
		{"data with a too old ACK", ACK, 0, 1, ack(-65001), Reply, Unsent},
		{"data without ACK", PSH, 0, 1, nil, Drop, NoACK},
		{"no flags", 0, 0, 0, nil, Drop, NoACK},
		{"urgent data", ACK | URG, 0, 1, nil, Wake, Urgent},
		{"urgent without data", ACK | URG, 0, 0, nil, Wake, Urgent},
		{"urgent and old", ACK | URG, -2, 1, nil, Reply, Old},
		{"FIN", ACK | FIN, 0, 0, nil, Wake, End},
		{"FIN out of order", ACK | FIN, 10, 0, nil, Wake, End},
		{"FIN behind the window", ACK | FIN, window, 0, nil, Reply, Outside},
		{"FIN far away", ACK | FIN, 1 << 20, 0, nil, Reply, Outside},
		{"FIN that is old", ACK | FIN, -1, 0, nil, Reply, Old},
		{"FIN that acknowledges the unsent", ACK | FIN, 0, 0, ack(5), Reply, Unsent},
		{"FIN at a closed window", ACK | FIN, 0, 0, closed, Wake, End},
		{"FIN with data at a closed window", ACK | FIN, 0, 1, closed, Reply, Probe},
		{"RST exact", RST, 0, 0, nil, Wake, Reset},
		{"RST exact with ACK", RST | ACK, 0, 0, ack(99), Wake, Reset},
		{"RST exact at a closed window", RST, 0, 0, closed, Wake, Reset},
		{"RST in the window", RST, 1, 0, nil, Reply, Challenge},
		{"RST at the edge", RST, window, 0, nil, Reply, Challenge},
		{"RST behind the window", RST, window + 1, 0, nil, Drop, Outside},
		{"RST that is old", RST, -1, 0, nil, Drop, Outside},
		{"RST beside a closed window", RST, 1, 0, closed, Drop, Outside},
		{"SYN of a new connection", SYN, 12345, 0, nil, Reply, Challenge},
		{"SYN at the next byte", SYN, 0, 0, nil, Reply, Challenge},
		{"SYN with ACK", SYN | ACK, 0, 0, nil, Reply, Challenge},
		{"SYN with RST", SYN | RST, 5, 0, nil, Reply, Challenge},
		{"keepalive", ACK, -1, 0, nil, Reply, Probe},
		{"keepalive with a byte", ACK, -1, 1, nil, Reply, Probe},
		{"keepalive with a wrong ACK", ACK, -1, 0, ack(-1), Reply, Old},
		{"probe of a closed window", ACK, -1, 0, closed, Reply, Probe},
		{"probe of a closed window by a byte", ACK, 0, 1, closed, Reply, Probe},
		{"data at a closed window", ACK, 0, 2, closed, Reply, Outside},
		{"ACK", ACK, 0, 0, nil, Drop, Nothing},
		{"ACK at a closed window", ACK, 0, 0, closed, Drop, Nothing},
		{"ACK of what is acknowledged", ACK, 0, 0, ack(-10), Drop, Nothing},
		{"ACK of the unsent", ACK, 0, 0, ack(1), Reply, Unsent},
		{"ACK behind the window", ACK, window + 1, 0, nil, Reply, Outside},
		{"ACK that is old", ACK, -2, 0, nil, Reply, Old},
		{"ACK with a larger window", ACK, 0, 0, announce(8001), Update, WindowChange},
		{"ACK with a smaller window", ACK, 0, 0, announce(1), Update, WindowChange},
		{"ACK that closes the window", ACK, 0, 0, announce(0), Update, WindowChange},
		{"older ACK with a window", ACK, 0, 0, func(s *socket.Spec, seg *Segment) { seg.Window = 1; seg.Ack-- }, Drop, Nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec()
			seg := segment(s, c.flags, c.offset, c.dataBytes)
			if c.change != nil {
				c.change(s, seg)
			}
			d := Judge(s, seg, 2*time.Second)
			if d.Action != c.action || d.Reason != c.reason {
				t.Errorf("action %d for %s, want %d for %s", d.Action, d.Reason, c.action, c.reason)
			}
		})
	}
}

func TestReply(t *testing.T) {
	s := spec()
	d := Judge(s, segment(s, ACK, -1, 0), 3*time.Second)
	want := Answer{Key: s.Key, Seq: 5000, Ack: 0xffffff00, Window: 0x100, TrafficClass: 0x10, Timestamps: true, Timestamp: s.Clock.Now(3 * time.Second), Echo: 77}
	if d.Answer != want {
		t.Errorf("answer %+v, want %+v", d.Answer, want)
	}
	s.Scaling, s.Timestamps, s.Window.Receive = false, false, 1<<20
	if a := Judge(s, segment(s, ACK, -1, 0), 0).Answer; a.Window != 0xffff || a.Timestamps {
		t.Errorf("without options: %+v", a)
	}
}

// TestWindowRules are those of the order of announcements (snd_wl1).
func TestWindowRules(t *testing.T) {
	for _, c := range []struct {
		name    string
		sentAt  int // relative to the segment
		scaling bool
		window  uint16
		want    uint32 // 0xffffffff: no update
	}{
		{"newer, smaller", -1, true, 10, 80}, {"newer, unscaled", -1, false, 10, 10}, {"same segment, smaller", 0, true, 10, ^uint32(0)},
		{"same segment, larger", 0, true, 10000, 80000}, {"same segment, closed", 0, true, 0, 0}, {"older", 1, true, 10000, ^uint32(0)},
		{"unchanged", -1, true, 8000, ^uint32(0)},
	} {
		s := spec()
		seg := segment(s, ACK, 0, 0)
		seg.Window, s.Scaling, s.Window.SentAt = c.window, c.scaling, seg.Seq+socket.Sequence(c.sentAt)
		d := Judge(s, seg, 0)
		if c.want == ^uint32(0) {
			if d.Action != Drop {
				t.Errorf("%s: %+v", c.name, d)
			}
			continue
		}
		want := s.Window
		want.SentAt, want.Send, want.Maximum = seg.Seq, c.want, max(want.Maximum, c.want)
		if d.Action != Update || d.Window != want {
			t.Errorf("%s: action %d, window %+v, want %+v", c.name, d.Action, d.Window, want)
		}
	}
}

// restated decides whether a segment may wake, byte by byte and in 64 bits
// instead of modulo 2^32.
func restated(s *socket.Spec, seg *Segment) bool {
	const far = int64(1) << 40
	place := func(q socket.Sequence) int64 { return far + int64(int32(q-s.ReceiveNext)) } // where ReceiveNext is far
	edge := max(far, place(s.Window.Updated)+int64(s.Window.Receive))
	first := place(seg.Seq)
	if seg.Flags&RST != 0 {
		return first == far
	}
	if seg.Flags&SYN != 0 || seg.Flags&ACK == 0 {
		return false
	}
	if ahead := int64(int32(seg.Ack - s.SendNext)); ahead > 0 || ahead < -int64(s.Window.Maximum) {
		return false
	}
	var touched, content bool // a byte or the end in the window
	for at := first; at < first+int64(seg.DataBytes); at++ {
		touched = touched || at >= far && at < edge
	}
	content = seg.DataBytes > 0
	if seg.Flags&FIN != 0 {
		at := first + int64(seg.DataBytes)
		content = true
		bare := seg.DataBytes == 0 && at == far
		touched = touched || at >= far && at < edge || bare || at == edge && edge > far && first < edge && first+int64(seg.DataBytes) > far
	}
	if !content {
		return seg.Flags&URG != 0 && first >= far && first <= edge
	}
	return touched
}

func TestJudgeAgreesWithRestatement(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	near := func() int { return r.IntN(41) - 20 }
	for range 300000 {
		s := spec()
		s.ReceiveNext = socket.Sequence(r.Uint32())
		s.Window.Updated = s.ReceiveNext - socket.Sequence(r.IntN(8))
		s.Window.Receive = uint32(r.IntN(16))
		s.Window.Maximum = uint32(r.IntN(16))
		seg := segment(s, Flags(r.IntN(64)), near(), r.IntN(12))
		if r.IntN(2) == 0 {
			seg.Flags = ACK | seg.Flags&FIN
		}
		seg.Ack = s.SendNext + socket.Sequence(near())
		if r.IntN(2) == 0 {
			seg.Ack = s.SendNext
		}
		d := Judge(s, seg, 0)
		if woken := d.Action == Wake; woken != restated(s, seg) {
			t.Fatalf("woken: %v for %s; segment at %d with %d bytes, flags %b, ack %d; window %d of %d", woken, d.Reason,
				int32(seg.Seq-s.ReceiveNext), seg.DataBytes, seg.Flags, int32(seg.Ack-s.SendNext), s.Window.Receive, int32(s.Window.Updated-s.ReceiveNext))
		}
		if d.Action == Update && (seg.DataBytes > 0 || seg.Ack != s.SendNext) {
			t.Fatalf("window changed by %+v", seg)
		}
	}
}

func TestJudgeDoesNotAllocate(t *testing.T) {
	s := spec()
	seg := segment(s, ACK, -1, 0)
	var b [AnswerBytes]byte
	n := testing.AllocsPerRun(100, func() {
		d := Judge(s, seg, 0)
		packet := d.Answer.AppendTo(b[:0])
		if got, err := Parse(packet, len(packet)); err != nil || got.Ack != s.ReceiveNext {
			t.Error(got, err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
