package nbd

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"testing"
)

// passOn suspends a server and resumes it as another one, by way of JSON.
func passOn(t *testing.T, s *Server, spec ServerSpec, exports ...Export) *Server {
	t.Helper()
	h, err := s.Suspend()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var decoded Handover
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	if err := decoded.SetFiles(h.Files()); err != nil {
		t.Fatal(err)
	}
	next, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, e := range exports {
		if err := next.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := next.Resume(&decoded); err != nil {
		t.Fatal(err)
	}
	return next
}

// TestHandover has clients at every place where a handover can meet them: idle,
// in the middle of a request's head and data, and with requests that are not
// read yet.
func TestHandover(t *testing.T) {
	d := newRAM(64*mib, 4096)
	export := Export{Name: "a", Device: d}
	s, socket := serve(t, ServerSpec{}, export)
	idle, inHead, inData, behind := transmits(t, socket, "a", true), transmits(t, socket, "a", false), transmits(t, socket, "a", false), transmits(t, socket, "a", false)
	negotiating := greeted(t, socket, 3)
	page := func(b byte) []byte { return bytes.Repeat([]byte{b}, 8192) }
	whole := func(cookie uint64, offset uint64, b byte) []byte {
		h := header{command: commandWrite, cookie: cookie, offset: offset, lenBytes: 8192}
		return append(h.append(nil), page(b)...)
	}
	for round := range byte(3) {
		at := uint64(round) * mib
		inHead.write(whole(100, at, 'h')[:13])
		inData.write(whole(101, at+8192, 'd')[:5000])
		behind.write(whole(102, at+16384, 'b'), whole(103, at+24576, 'c'), whole(104, at+32768, 'x')[:20])
		s = passOn(t, s, ServerSpec{}, export)
		inHead.write(whole(100, at, 'h')[13:])
		inData.write(whole(101, at+8192, 'd')[5000:])
		behind.write(whole(104, at+32768, 'x')[20:])
		for c, cookies := range map[*client][]uint64{inHead: {100}, inData: {101}, behind: {102, 103, 104}} {
			for range cookies {
				if r := c.receive(); r.err != 0 || r.cookie < cookies[0] || r.cookie > cookies[len(cookies)-1] {
					t.Errorf("round %d: reply %+v, want %d", round, r, cookies)
				}
			}
		}
		for i, b := range []byte("hdbcx") {
			if got := inHead.readAt(at+uint64(i)*8192, 8192); !bytes.Equal(got, page(b)) {
				t.Errorf("round %d: wrong content of %c", round, b)
			}
		}
		if r := idle.do(commandBlockStatus, flagReqOne, at, 4096, nil); r.kind != chunkBlockStatus || r.err != 0 {
			t.Errorf("round %d: block status %+v", round, r)
		}
		transmits(t, socket, "a", false).readAt(0, 4096) // the listener goes on
	}
	negotiating.hungUp()
	if n := s.Stats().Exports["a"].Connections; n < 4 {
		t.Errorf("%d connections", n)
	}
}

// TestHandoverOfRepliesNotTaken has a client with many replies to come that
// takes none of them until the server was replaced, twice.
func TestHandoverOfRepliesNotTaken(t *testing.T) {
	d := newRAM(64*mib, 4096)
	for i := range d.memory {
		d.memory[i] = byte(i >> 16)
	}
	export := Export{Name: "a", Device: d}
	spec := ServerSpec{Ended: func(_ net.Addr, err error) {
		if err != nil {
			t.Errorf("connection ended: %v", err)
		}
	}}
	s, socket := serve(t, spec, export)
	c := transmits(t, socket, "a", false)
	const requests, lenBytes = 100, mib
	for i := range requests {
		c.send(commandRead, 0, uint64(i%64)*lenBytes, lenBytes, nil)
	}
	for s.Stats().Exports["a"].Reads < 20 {
		transmits(t, socket, "a", false).readAt(0, 4096)
	}
	for range 2 {
		s = passOn(t, s, spec, export)
	}
	seen := map[uint64]bool{}
	for range requests {
		r := c.receive()
		if r.err != 0 || seen[r.cookie] {
			t.Fatalf("reply %+v", r)
		}
		seen[r.cookie] = true
		first := int(r.cookie-1) % 64 * lenBytes
		if got := c.read(lenBytes); !bytes.Equal(got, d.memory[first:first+lenBytes]) {
			t.Fatalf("wrong content of reply to %d", r.cookie)
		}
	}
}

// TestHandoverAfterHandshake has a client that knows that the handshake is over,
// while the server has not come to know that it has told it.
func TestHandoverAfterHandshake(t *testing.T) {
	ends := map[string]func(*client){
		"GO": func(c *client) { c.final(optionGo, infoData("a", infoBlockSize)) },
		"EXPORT_NAME": func(c *client) {
			c.write(optionBytes(optionExportName, []byte("a")))
			c.read(10)
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			export := Export{Name: "a", Device: newRAM(mib, 4096)}
			s, err := New(ServerSpec{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Add(export); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			late := &lateListener{Listener: l}
			listen(t, s, late)
			c := greeted(t, socket, 3)
			late.late.Store(true)
			end(c)
			cookie := c.send(commandRead, 0, 0, 4096, nil)
			passOn(t, s, ServerSpec{}, export)
			if r := c.receive(); r.cookie != cookie || r.err != 0 {
				t.Errorf("reply %+v", r)
			}
			c.read(4096)
		})
	}
}

// TestHandoverWithoutDescriptors wants to be told of a connection that is lost.
func TestHandoverWithoutDescriptors(t *testing.T) {
	ends := make(chan error, 1)
	s, err := New(ServerSpec{Ended: func(_ net.Addr, err error) { ends <- err }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(Export{Name: "a", Device: newRAM(mib, 4096)}); err != nil {
		t.Fatal(err)
	}
	theirs, ours := net.Pipe()
	s.admit(theirs)
	c := &client{t: t, conn: ours}
	c.read(18)
	c.write(clientFlags(3))
	c.final(optionGo, infoData("a"))
	h, err := s.Suspend()
	if err != nil || len(h.Connections) != 0 {
		t.Errorf("handover %+v, %v", h, err)
	}
	if err := <-ends; !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("connection ended: %v", err)
	}
	c.hungUp()
}

// TestHandoverWaitsForDevices wants no request to be in the old server's device
// when the new one goes on.
func TestHandoverWaitsForDevices(t *testing.T) {
	s, socket, entered, open := serveGated(t, ServerSpec{}, "write")
	c := transmits(t, socket, "a", false)
	cookie := c.send(commandWrite, 0, 0, 4096, make([]byte, 4096))
	<-entered
	suspended := make(chan *Handover)
	go func() {
		h, err := s.Suspend()
		if err != nil {
			t.Error(err)
		}
		suspended <- h
	}()
	for !s.isClosed() {
		runtime.Gosched()
	}
	select {
	case <-suspended:
		t.Fatal("suspended under a request")
	default:
	}
	open()
	h := <-suspended
	if r := c.receive(); r.cookie != cookie || r.err != 0 {
		t.Errorf("reply %+v", r)
	}
	if len(h.Connections) != 1 || len(h.Listeners) != 1 || len(h.Connections[0].Unsent) != 0 {
		t.Errorf("handover %+v", h)
	}
	if err := h.SetFiles(nil); err == nil {
		t.Error("descriptors of another handover were taken")
	}
	orphan, err := New(ServerSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := orphan.Resume(h); err == nil { // the export is not there
		t.Error("connection to no export was resumed")
	}
	c.hungUp()
	if err := orphan.Close(); err != nil {
		t.Error(err)
	}
	if err := orphan.Resume(h); err == nil {
		t.Error("closed server was resumed")
	}
}

func TestHandoverEndsTLS(t *testing.T) {
	config := newAuthority(t).config(tls.NoClientCert)
	export := Export{Name: "a", Device: newRAM(mib, 4096)}
	s, socket := serve(t, ServerSpec{TLS: config}, export)
	c := secured(t, socket)
	if got := c.final(optionGo, infoData("a")); got != replyAck {
		t.Fatalf("GO: %#x", got)
	}
	c.readAt(0, 4096)
	passOn(t, s, ServerSpec{TLS: config}, export)
	c.hungUp()
	again := secured(t, socket)
	if got := again.final(optionGo, infoData("a")); got != replyAck {
		t.Fatalf("GO: %#x", got)
	}
}
