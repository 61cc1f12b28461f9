package nbd

import (
	"bytes"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"torpor/block"
)

// gated is a device whose requests of some kinds wait.
func gated(verbs ...string) (d *ram, entered chan string, open func()) {
	d = newRAM(64*mib, 4096)
	entered, gate := make(chan string, 1000), make(chan struct{})
	d.wait = func(verb string) error {
		for _, v := range verbs {
			if v == verb {
				entered <- verb
				<-gate
			}
		}
		return nil
	}
	var done atomic.Bool
	open = func() {
		if done.CompareAndSwap(false, true) {
			close(gate)
		}
	}
	return d, entered, open
}

// serveGated opens the gate before it closes the server.
func serveGated(t *testing.T, spec ServerSpec, verbs ...string) (s *Server, socket string, entered chan string, open func()) {
	var d *ram
	d, entered, release := gated(verbs...)
	s, socket = serve(t, spec, Export{Name: "a", Device: d})
	t.Cleanup(release)
	return s, socket, entered, release
}

// TestSlowRequestsHoldNobodyUp sends a request that hangs, of each kind, and
// wants others of the same connection and of another one to be answered. Reads
// and writes are handled by the reader at first, which then loses its turn.
func TestSlowRequestsHoldNobodyUp(t *testing.T) {
	for verb, cmd := range map[string]command{
		"read": commandRead, "write": commandWrite, "zero": commandWriteZeroes, "discard": commandTrim, "flush": commandFlush,
	} {
		t.Run(verb, func(t *testing.T) {
			_, socket, entered, open := serveGated(t, ServerSpec{}, verb)
			c, other := transmits(t, socket, "a", false), transmits(t, socket, "a", false)
			var slow []uint64
			send := func() {
				var data []byte
				lenBytes := uint32(4096)
				switch cmd {
				case commandWrite:
					data = make([]byte, 4096)
				case commandFlush:
					lenBytes = 0
				}
				slow = append(slow, c.send(cmd, 0, 0, lenBytes, data))
			}
			for range 5 {
				send()
				<-entered
			}
			quick := commandCache // which reads
			if cmd == commandRead {
				quick = commandFlush
			}
			for _, free := range []*client{c, other} {
				lenBytes := uint32(0)
				if quick == commandCache {
					lenBytes = 4096
				}
				if r := free.do(quick, 0, 0, lenBytes, nil); r.err != 0 {
					t.Errorf("request beside: %+v", r)
				}
			}
			open()
			answered := map[uint64]bool{}
			for range slow {
				r := c.receive()
				answered[r.cookie] = r.err == 0
				if cmd == commandRead {
					c.read(4096)
				}
			}
			for _, cookie := range slow {
				if !answered[cookie] {
					t.Errorf("request %d was not answered", cookie)
				}
			}
		})
	}
}

// TestClientsThatDoNotRead bounds what is held for a client that takes no
// replies: it is not read any more, and others are served.
func TestClientsThatDoNotRead(t *testing.T) {
	s, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: newRAM(64*mib, 4096)})
	c := transmits(t, socket, "a", false)
	const requests, lenBytes = 300, mib
	for range requests {
		c.send(commandRead, 0, 0, lenBytes, nil)
	}
	other := transmits(t, socket, "a", false)
	for s.Stats().Exports["a"].ReadBytes < 32*mib { // it gets on until it holds its share
		other.readAt(0, 4096)
	}
	held := 0
	for _, conn := range connsOf(s) {
		conn.out.mu.Lock()
		held = max(held, conn.out.heldBytes)
		conn.out.mu.Unlock()
	}
	if limit := s.spec.InFlightBytes; held > limit {
		t.Errorf("%d bytes are held, limit %d", held, limit)
	}
	for range requests {
		if r := c.receive(); r.err != 0 {
			t.Fatalf("%+v", r)
		}
		c.read(lenBytes)
	}
}

func connsOf(s *Server) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var conns []*conn
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// TestRemoveWaits wants a request that is under way to be finished and answered
// before the export is gone.
func TestRemoveWaits(t *testing.T) {
	s, socket, entered, open := serveGated(t, ServerSpec{}, "write")
	if err := s.Add(Export{Name: "b", Device: newRAM(mib, 4096)}); err != nil {
		t.Fatal(err)
	}
	c, idle, other := transmits(t, socket, "a", false), transmits(t, socket, "a", false), transmits(t, socket, "b", false)
	other.readAt(0, 4096) // so it is in its export's account
	cookie := c.send(commandWrite, 0, 0, 4096, make([]byte, 4096))
	<-entered
	removed := make(chan error)
	go func() { removed <- s.Remove("a") }()
	idle.hungUp()
	if got := greeted(t, socket, 3).final(optionGo, infoData("a")); got != replyErrorUnknown {
		t.Errorf("GO while it is removed: %#x", got)
	}
	if n := s.Stats().Exports["b"].Connections; n != 1 {
		t.Errorf("%d connections to the other export", n)
	}
	select {
	case err := <-removed:
		t.Fatalf("removed under a request: %v", err)
	default:
	}
	open()
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	if r := c.receive(); r.cookie != cookie || r.err != 0 {
		t.Errorf("reply %+v", r)
	}
	c.hungUp()
	other.readAt(0, 4096)
	if err := s.Remove("a"); err == nil {
		t.Error("removed twice")
	}
	if err := s.Add(Export{Name: "a", Device: newRAM(mib, 4096)}); err != nil {
		t.Fatal(err)
	}
	transmits(t, socket, "a", false).readAt(0, 4096)
}

func TestConnectionsAreCounted(t *testing.T) {
	ends := make(chan error, 10)
	spec := ServerSpec{MaxConnections: 2, Ended: func(_ net.Addr, err error) { ends <- err }}
	s, socket := serve(t, spec, Export{Name: "a", Device: newRAM(mib, 4096)})
	first, second := transmits(t, socket, "a", false), transmits(t, socket, "a", false)
	dial(t, socket).hungUp()
	first.do(commandWrite, 0, 0, 8192, make([]byte, 8192))
	first.readAt(0, 4096)
	second.readAt(0, 4096) // so it is in its export's account
	first.do(commandFlush, 0, 0, 0, nil)
	first.do(commandTrim, 0, 0, 4096, nil)
	got := s.Stats()
	e := got.Exports["a"]
	want := ExportStats{Connections: 2, Reads: 2, Writes: 1, Flushes: 1, Others: 1, ReadBytes: 8192, WrittenBytes: 8192}
	if e != want || got.Connections != 2 || got.Accepted != 2 || got.Refused != 1 {
		t.Errorf("%+v, want %+v", got, want)
	}
	first.send(commandDisconnect, 0, 0, 0, nil)
	second.write(make([]byte, requestBytes))
	clean, broken := 0, 0
	for range 2 {
		if err := <-ends; err == nil {
			clean++
		} else {
			broken++
		}
	}
	if clean != 1 || broken != 1 {
		t.Errorf("%d connections ended in order, %d broken", clean, broken)
	}
}

func TestExportsThatCanNotBe(t *testing.T) {
	s, _ := serve(t, ServerSpec{}, Export{Name: "a", Device: newRAM(mib, 4096)})
	for what, e := range map[string]Export{
		"twice":       {Name: "a", Device: newRAM(mib, 4096)},
		"NUL":         {Name: "\x00", Device: newRAM(mib, 4096)},
		"odd blocks":  {Name: "b", Device: newRAM(mib, 5000)},
		"long":        {Name: "b", Description: string(bytes.Repeat([]byte("x"), 5000)), Device: newRAM(mib, 4096)},
		"huge blocks": {Name: "b", Device: newRAM(mib, 1<<17)},
	} {
		if err := s.Add(e); err == nil {
			t.Errorf("%s: added", what)
		}
	}
}

// TestClose wants Close to wait for what is under way, and nothing to work
// afterwards.
func TestClose(t *testing.T) {
	s, socket, entered, open := serveGated(t, ServerSpec{}, "flush")
	c, negotiating := transmits(t, socket, "a", false), greeted(t, socket, 3)
	c.send(commandFlush, 0, 0, 0, nil)
	<-entered
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	negotiating.hungUp()
	open()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if r := c.receive(); r.err != 0 {
		t.Errorf("reply %+v", r)
	}
	c.hungUp()
	if err := s.Add(Export{Name: "b", Device: newRAM(mib, 4096)}); err == nil {
		t.Error("added to a closed server")
	}
	if _, err := s.Suspend(); err != ErrClosed {
		t.Errorf("suspend a closed server: %v", err)
	}
}

// TestPreferredBytes wants a power of two whatever the device prefers.
func TestPreferredBytes(t *testing.T) {
	for prefers, want := range map[int]uint32{0: 4096, 512: 4096, 4096: 4096, 3 << 16: 1 << 18, 1 << 20: 1 << 20, 1 << 30: maxPayloadBytes} {
		if got := blockSizesOf(block.Info{BlockBytes: 512, PreferredBytes: prefers}); got.preferredBytes != want || got.minBytes != 512 {
			t.Errorf("%d: %+v, want %d", prefers, got, want)
		}
	}
}

// TestTurn hands the turn to the timer twice in a row.
func TestTurn(t *testing.T) {
	taken, armed := make(chan uint64), make(chan struct{}, 100)
	var u turn
	u.arm = func() { armed <- struct{}{} }
	u.take = func() { taken <- u.begin() }
	u.timer = time.AfterFunc(time.Hour, u.tick)
	first := u.begin()
	second := <-taken
	if u.end(first) {
		t.Error("the first has the turn still")
	}
	third := <-taken
	if u.end(second) || !u.end(third) {
		t.Error("the third has not the turn")
	}
	for u.armed.Load() { // it becomes idle
		time.Sleep(patience)
	}
}
