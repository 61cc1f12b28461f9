package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// drainTime is how long a client may take to accept the last replies when
	// its connection ends, and keptDrainTime the same when the connection is
	// handed over, along with what is not accepted.
	drainTime     = time.Second
	keptDrainTime = 20 * time.Millisecond
	// inlineBytes and inlineTime bound what the reader does by itself: requests
	// up to this length while ones of their kind took no longer on average.
	inlineBytes = 64 << 10
	inlineTime  = 25 * time.Microsecond
	// batchReplies are written before the reader goes on with what it has read.
	batchReplies = 32
)

var errDisconnect = errors.New("client disconnected")

// phase is how far a connection is:
//
//	negotiating -> transmitting -> ended
type phase int

const (
	negotiating phase = iota
	transmitting
	ended
)

// conn is a connection with a client.
type conn struct {
	server   *Server
	accepted net.Conn // what the listener gave
	done     chan struct{}

	mu       sync.Mutex
	phase    phase
	stopping bool
	keep     bool // stopping, to be handed over

	// Set when the transmission begins.
	terms
	conn   net.Conn // accepted, or TLS on it
	secure bool
	in     *intake
	out    *outbox

	running sync.WaitGroup // all goroutines but the first
	turn    turn
	stop    atomic.Bool
	stuck   atomic.Int64              // goroutines that lost the turn
	pace    [commandWrite + 1]average // of reads and writes

	// Of the one who has the turn.
	jobs    chan *request
	workers int
	partial []byte // of a request that was read half when the connection stopped
	err     error  // why the transmission ended
}

// average is a running mean of times.
type average struct{ nanoseconds atomic.Int64 }

func (a *average) note(d time.Duration) {
	old := a.nanoseconds.Load()
	a.nanoseconds.Store(old + (int64(d)-old)/8)
}

func (a *average) set(d time.Duration) { a.nanoseconds.Store(int64(d)) }
func (a *average) quick() bool         { return a.nanoseconds.Load() <= int64(inlineTime) }

func newConn(s *Server, accepted net.Conn) *conn {
	c := &conn{server: s, accepted: accepted, conn: accepted, done: make(chan struct{})}
	c.turn.arm = func() { c.running.Add(1) }
	c.turn.take = c.relieve
	c.turn.timer = time.AfterFunc(time.Hour, func() {
		defer c.running.Done()
		c.turn.tick()
	})
	c.turn.timer.Stop()
	return c
}

// run is the life of a connection that was accepted.
func (c *conn) run() {
	err := c.negotiate()
	if err == nil {
		err = c.transmit()
	}
	c.end(err)
}

// negotiate does the handshake, and begins the transmission.
func (c *conn) negotiate() error {
	spec := &c.server.spec
	if err := c.accepted.SetDeadline(time.Now().Add(spec.HandshakeTimeout)); err != nil {
		return err
	}
	h := handshake{
		catalog: c.server, tls: spec.TLS, needsTLS: spec.RequireTLS, conn: c.accepted,
		in: newIntake(c.accepted, nil),
	}
	if err := h.run(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	c.terms, c.conn, c.secure, c.in = h.terms, h.conn, h.secure, h.in
	return c.begin(h.out.Bytes())
}

// begin enters the transmission phase, unless the connection or its export is
// to end. What is unsent goes to the client before anything else, and may be
// what tells it that the phase begins: who has been told so is never taken for
// one in the handshake, which would end by a handover.
func (c *conn) begin(unsent []byte) error {
	if !c.server.attach(c) {
		return errUnknown
	}
	if !c.sized {
		c.export.view.engage()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return ErrClosed
	}
	c.out = newOutbox(c.conn, c.server.spec.InFlightBytes, unsent)
	c.jobs = make(chan *request)
	c.phase = transmitting
	return c.accepted.SetDeadline(time.Time{})
}

// transmit returns when the last request was answered and nothing runs any more.
func (c *conn) transmit() error {
	c.serve()
	c.running.Wait()
	return c.err
}

// interrupt makes the connection end: at once in the handshake, else when the
// requests under way are answered. With keep, it is left to be handed over.
func (c *conn) interrupt(keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping, c.keep = true, keep
	if c.phase != transmitting || c.secure {
		c.keep = false
	}
	switch c.phase {
	case negotiating:
		c.accepted.Close()
	case transmitting:
		c.stop.Store(true)
		c.out.interrupt()
		c.accepted.SetReadDeadline(time.Unix(1, 0))
		c.limitWrites(c.keep)
	}
}

func (c *conn) limitWrites(keep bool) {
	limit := drainTime
	if keep {
		limit = keptDrainTime
	}
	c.accepted.SetWriteDeadline(time.Now().Add(limit))
}

// end finishes: it sends what is left and hangs up, or keeps the connection.
func (c *conn) end(err error) {
	c.mu.Lock()
	was, keep := c.phase, c.keep && errors.Is(err, os.ErrDeadlineExceeded)
	c.phase = ended
	c.mu.Unlock()
	if was == transmitting {
		c.limitWrites(keep)
		err = errors.Join(c.out.resume(), err)
		c.out.flush()
	}
	if errors.Is(err, errDisconnect) || errors.Is(err, errAborted) || errors.Is(err, io.EOF) || c.stop.Load() {
		err = nil
	}
	if keep && c.out.resume() == nil {
		err = c.server.keep(c)
	}
	c.conn.Close()
	c.accepted.Close()
	c.server.forget(c, err)
	close(c.done)
}
