package aio

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Request is one read or write, struct iocb of linux/aio_abi.h.
type Request struct {
	FD     int // stays the caller's, open until Done is called
	Write  bool
	Memory [][]byte // from or to; the kernel's until Done is called
	Offset int64    // in bytes, from the start of the file
	// Durable writes are on the disk when they end (RWF_DSYNC).
	Durable bool
	// NoWait fails with EAGAIN where Submit would wait, for a place in the disk's
	// queue or for what a file system has to look up, as far as the kernel knows.
	NoWait bool
	// Done is called once, with how many bytes were transferred or an errno. It may
	// be called before Submit returns. Others wait meanwhile, so it must not block.
	Done func(n int, err error)
}

// Queue is a queue of requests. Its methods may be called concurrently.
type Queue struct {
	context contextID
	zero    *os.File // reads of it end at once

	mu     sync.Mutex
	slots  []slot
	free   []uint32
	closed bool

	reaped chan struct{} // closed by the goroutine that reaps
}

// slot is a place for a request: its memory must be known to Go until it ends.
type slot struct {
	request Request
	control control
	vector  []unix.Iovec
}

// stopIndex is that of the request that ends reaping.
const stopIndex = ^uint64(0)

// NewQueue makes a queue for so many requests at once. Errors: ENOSYS of a kernel
// without asynchronous I/O, EAGAIN beyond fs.aio-max-nr of all processes.
func NewQueue(requests int) (*Queue, error) {
	zero, err := os.Open("/dev/zero")
	if err != nil {
		return nil, fmt.Errorf("make I/O queue: %w", err)
	}
	q := &Queue{zero: zero, slots: make([]slot, requests), free: make([]uint32, requests), reaped: make(chan struct{})}
	for i := range q.free {
		q.free[i] = uint32(i)
	}
	if err := q.context.setup(requests + 1); err != nil {
		zero.Close()
		return nil, fmt.Errorf("make I/O queue: %w", err)
	}
	go q.reap()
	return q, nil
}

// Submit begins a request. If it returns an error nothing was begun, and Done is
// not called. Errors: EAGAIN if there are too many, os.ErrClosed, or what the kernel
// has against it.
func (q *Queue) Submit(r Request) error {
	index, err := q.take(r)
	if err != nil {
		return err
	}
	if errno := q.context.submit(&q.slots[index].control); errno != 0 {
		q.give(index)
		return errno
	}
	return nil
}

// take fills a free slot, with the lock held: that what it does comes before what
// happens when the request has ended only the kernel would know otherwise.
func (q *Queue) take(r Request) (uint32, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch n := len(q.free); {
	case q.closed:
		return 0, os.ErrClosed
	case n == 0:
		return 0, unix.EAGAIN
	default:
		index := q.free[n-1]
		q.free = q.free[:n-1]
		s := &q.slots[index]
		s.request = r
		s.prepare(uint64(index))
		return index, nil
	}
}

// give makes a slot free. What was its request is returned.
func (q *Queue) give(index uint32) Request {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.slots[index].request
	q.slots[index].request = Request{}
	q.free = append(q.free, index)
	return r
}

// reap calls Done of what has ended, until it is stopped.
func (q *Queue) reap() {
	defer close(q.reaped)
	var events [64]event
	for {
		n, errno := q.context.wait(events[:])
		if errno != 0 && errno != unix.EINTR {
			panic(fmt.Sprintf("wait for I/O: %v", errno)) // the kernel refuses only wrong arguments
		}
		for _, e := range events[:n] {
			if e.Data == stopIndex {
				return
			}
			r := q.give(uint32(e.Data))
			if e.Result < 0 {
				r.Done(0, unix.Errno(-e.Result))
			} else {
				r.Done(int(e.Result), nil)
			}
		}
	}
}

// Close ends the queue. Errors: EBUSY while there are requests, which changes nothing.
func (q *Queue) Close() error {
	if err := q.close(); err != nil {
		return fmt.Errorf("close I/O queue: %w", err)
	}
	<-q.reaped
	q.context.destroy()
	return q.zero.Close()
}

func (q *Queue) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return os.ErrClosed
	case len(q.free) < len(q.slots):
		return unix.EBUSY
	}
	s := slot{request: Request{FD: int(q.zero.Fd()), Memory: [][]byte{make([]byte, 1)}}}
	s.prepare(stopIndex)
	if errno := q.context.submit(&s.control); errno != 0 {
		return errno
	}
	q.closed = true
	return nil
}
