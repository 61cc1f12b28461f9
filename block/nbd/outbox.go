package nbd

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// outbox holds a connection's answered requests until the client has taken the
// replies, and limits what the connection holds in memory. There is no writing
// goroutine: whoever finds nobody writing writes all that is there.
//
// When the connection is stopped by a deadline, what is not written is kept.
// After any other error, replies are dropped.
type outbox struct {
	conn       net.Conn
	limitBytes int

	mu        sync.Mutex
	queue     []*request // answered
	unsent    []byte     // bytes of replies in front of the queue, after a deadline
	writing   bool
	stopped   bool // by a deadline: nobody writes, nobody waits
	err       error
	heldBytes int       // by requests that were read and not written
	room      sync.Cond // for heldBytes, stopped, err

	// Of the one who writes.
	spare   []*request
	scratch [][]byte
}

func newOutbox(conn net.Conn, limitBytes int, unsent []byte) *outbox {
	o := &outbox{conn: conn, limitBytes: limitBytes, unsent: unsent}
	o.room.L = &o.mu
	return o
}

// admit waits until a request of this cost may be read. Errors: that of an
// earlier write; os.ErrDeadlineExceeded if the connection was stopped.
func (o *outbox) admit(costBytes int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.heldBytes > 0 && o.heldBytes+costBytes > o.limitBytes && !o.stopped && o.err == nil {
		o.room.Wait()
	}
	switch {
	case o.err != nil:
		return o.err
	case o.stopped:
		return os.ErrDeadlineExceeded
	}
	o.heldBytes += costBytes
	return nil
}

// fits says whether admit would wait.
func (o *outbox) fits(costBytes int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.heldBytes == 0 || o.heldBytes+costBytes <= o.limitBytes
}

// withdraw takes back an admission for a request that was not read.
func (o *outbox) withdraw(costBytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heldBytes -= costBytes
}

// put queues a reply, and returns how many there are.
func (o *outbox) put(r *request) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, r)
	return len(o.queue)
}

// flush writes what is queued, unless somebody else does.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing {
		return
	}
	o.writing = true
	for o.err == nil && !o.stopped && len(o.queue)+len(o.unsent) > 0 {
		batch, first := o.queue, o.unsent
		o.queue, o.unsent = o.spare[:0], nil
		o.mu.Unlock()
		rest, err := o.write(first, batch)
		freed := release(batch)
		o.mu.Lock()
		o.spare = batch[:0]
		o.settle(freed, rest, err)
	}
	if o.err != nil {
		o.heldBytes -= release(o.queue)
		o.queue = o.queue[:0]
	}
	o.writing = false
}

// settle notes what came of a write. Called with the lock held.
func (o *outbox) settle(freedBytes int, rest []byte, err error) {
	o.heldBytes -= freedBytes
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		o.stopped, o.unsent = true, rest
	case err != nil:
		o.err = err
		o.conn.SetReadDeadline(time.Unix(1, 0)) // the reader need not go on
	}
	o.room.Broadcast()
}

// write sends replies, and returns a copy of what did not go out.
func (o *outbox) write(first []byte, batch []*request) (rest []byte, err error) {
	vectors := o.scratch[:0]
	if len(first) > 0 {
		vectors = append(vectors, first)
	}
	for _, r := range batch {
		vectors = append(vectors, r.vectors...)
	}
	o.scratch = vectors
	defer clear(o.scratch)
	if len(vectors) == 1 {
		n, err := o.conn.Write(vectors[0])
		if err != nil {
			rest = slices.Clone(vectors[0][n:])
		}
		return rest, err
	}
	left := net.Buffers(vectors)
	if _, err = left.WriteTo(o.conn); err != nil {
		rest = slices.Concat(left...)
	}
	return rest, err
}

func release(batch []*request) (costBytes int) {
	for _, r := range batch {
		costBytes += r.costBytes
		r.release()
	}
	clear(batch)
	return costBytes
}

// interrupt ends waiting in admit; replies are kept from then on, until resume.
func (o *outbox) interrupt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	o.room.Broadcast()
}

// resume lets flush write again. It returns the error of an earlier write.
func (o *outbox) resume() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = false
	return o.err
}

// remainder returns the bytes that the client was not sent. Nobody else uses the
// outbox any more.
func (o *outbox) remainder() []byte {
	rest := o.unsent
	for _, r := range o.queue {
		rest = append(rest, slices.Concat(r.vectors...)...)
	}
	release(o.queue)
	o.queue, o.unsent = nil, nil
	return rest
}
