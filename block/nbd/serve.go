package nbd

import (
	"fmt"
	"io"
	"os"
	"time"
)

// serve reads requests until the connection ends or another goroutine has the
// turn. The caller has the turn.
func (c *conn) serve() {
	for {
		if !c.ready() && !c.flush() {
			return
		}
		r, err := c.next()
		if err != nil {
			c.finish(err)
			return
		}
		if !c.inline(r) {
			if !c.dispatch(r) {
				return
			}
			continue
		}
		busy := c.turn.begin()
		c.handle(r)
		if c.out.put(r) >= batchReplies {
			c.out.flush()
		}
		if !c.turn.end(busy) {
			c.lost()
			return
		}
	}
}

// finish ends the transmission: workers end when they are done.
func (c *conn) finish(err error) {
	c.err = err
	if c.turn.timer.Stop() {
		c.running.Done()
	}
	close(c.jobs)
}

// lost is what who lost the turn does last.
func (c *conn) lost() {
	c.stuck.Add(-1)
	c.out.flush()
}

// relieve goes on in the place of a goroutine that is held up.
func (c *conn) relieve() {
	c.stuck.Add(1)
	for i := range c.pace {
		c.pace[i].set(2 * inlineTime)
	}
	if c.flush() {
		c.serve()
	}
}

// flush writes queued replies; it returns whether the caller still has the turn.
func (c *conn) flush() bool {
	busy := c.turn.begin()
	c.out.flush()
	if !c.turn.end(busy) {
		c.stuck.Add(-1)
		return false
	}
	return true
}

// ready says whether a whole request was received already, so that reading it
// does not wait. Then replies may wait, to be written together with its own.
func (c *conn) ready() bool {
	if !c.in.has(requestBytes) {
		return false
	}
	b, _ := c.in.Peek(requestBytes)
	h, err := decodeHeader(b)
	return err != nil || c.in.has(requestBytes+int(h.payloadBytes())) && c.out.fits(costOf(h))
}

// next reads a request. Its errors end the connection; if that is because it
// was stopped, what was read of the request is in the buffer, or in partial.
func (c *conn) next() (*request, error) {
	if c.stop.Load() {
		return nil, os.ErrDeadlineExceeded
	}
	b, err := c.in.Peek(requestBytes)
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	if h.command == commandDisconnect {
		return nil, errDisconnect
	}
	refused := h.check(&c.terms)
	cost := minCostBytes
	if refused == 0 {
		cost = costOf(h)
	}
	if err := c.out.admit(cost); err != nil {
		return nil, err
	}
	c.in.Discard(requestBytes)
	r := newRequest(h, refused, cost)
	if err := c.receive(r); err != nil {
		r.release()
		c.out.withdraw(cost)
		return nil, err
	}
	return r, nil
}

// receive reads the data of a request.
func (c *conn) receive(r *request) error {
	lenBytes := r.payloadBytes()
	if lenBytes == 0 {
		return nil
	}
	if r.refused != 0 {
		return c.drop(r)
	}
	n, err := io.ReadFull(c.in, r.data())
	if err != nil {
		c.partial = append(r.header.append(nil), r.data()[:n]...)
	}
	return err
}

// drop reads the data of a request that is refused. A connection that is
// stopped meanwhile can not be handed over.
func (c *conn) drop(r *request) error {
	if r.lenBytes > maxDroppedPayloadBytes {
		return fmt.Errorf("read data of a write: %d bytes are too many", r.lenBytes)
	}
	if _, err := c.in.Discard(int(r.lenBytes)); err != nil {
		return fmt.Errorf("read data of a refused write: %v", err)
	}
	return nil
}

// inline says whether the reader handles a request by itself, because that is
// quicker than to wake another goroutine.
func (c *conn) inline(r *request) bool {
	if r.refused != 0 {
		return true
	}
	if r.command > commandWrite || r.lenBytes > inlineBytes || r.flags&flagFUA != 0 {
		return false
	}
	return c.pace[r.command].quick() && c.stuck.Load() < int64(c.server.spec.Workers)
}

// dispatch gives a request to a worker. It returns whether the caller still has
// the turn.
func (c *conn) dispatch(r *request) bool {
	select {
	case c.jobs <- r:
		return true
	default:
	}
	if c.workers < c.server.spec.Workers {
		c.workers++
		c.running.Add(1)
		go c.work(r)
		return true
	}
	if !c.flush() {
		c.handle(r)
		c.out.put(r)
		c.out.flush()
		return false
	}
	c.jobs <- r
	return true
}

// work handles requests until the connection ends.
func (c *conn) work(r *request) {
	defer c.running.Done()
	for ok := true; ok; r, ok = <-c.jobs {
		c.handle(r)
		c.out.put(r)
		c.out.flush()
	}
}

// handle executes a request and keeps account of it.
func (c *conn) handle(r *request) {
	counts := &c.export.counts
	timed := r.refused == 0 && r.command <= commandWrite && r.lenBytes <= inlineBytes
	var start time.Time
	if timed {
		start = time.Now()
	}
	counts.begin()
	c.terms.execute(r)
	counts.end(r)
	if timed {
		c.pace[r.command].note(time.Since(start))
	}
}
