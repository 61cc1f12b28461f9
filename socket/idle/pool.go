package idle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"torpor/host"
	"torpor/kernel/netns"
	"torpor/socket"
	"torpor/socket/filter"
	"torpor/socket/imagefile"
	"torpor/socket/segment"
)

// Options say how a Pool keeps connections.
type Options struct {
	Path string // of the socket image; made if it is not there

	// Listen are the addresses that the program listens on: connections of
	// others can not be suspended. Where all are of the wildcard address, packets
	// of connections that are not suspended take the usual way through the
	// kernel; otherwise each is looked at, which costs it some 50 microseconds.
	Listen []netip.AddrPort

	// Wake gets a connection for which something has arrived: data, its end, or a
	// reset. The packet follows when Wake returns, so Wake starts a goroutine.
	// The program owns the connection then.
	Wake func(c *net.TCPConn, tag uint64)

	// Failed, if not nil, is told of connections that are lost; with the zero Key
	// of those that can not be named, and of an image that can not be compacted.
	Failed func(socket.Key, error)

	Queues    int    // packets are looked at by so many threads; 0: one
	Table     string // of nftables; "": torpor_idle. Two programs of one namespace need two
	QueueBase uint16 // number of the first queue of the namespace
	Namespace string // path of the network namespace; "": that of the process
}

// Key names a connection.
type Key = socket.Key

// Pool keeps the idle connections of a program. It may be used concurrently.
// Close it.
type Pool struct {
	options   Options
	image     *imagefile.File
	filter    *filter.Filter
	suspender *socket.Suspender
	namespace *netns.Visitor

	suspending sync.Mutex   // the suspender is for one at a time
	closing    sync.RWMutex // written while records are kept whose sockets are not closed yet
	taking     [64]sync.Mutex
	compacting atomic.Bool
	running    sync.WaitGroup // the filter, and who compacts
	failure    error          // of the filter, after running
}

// Conn is a connection that shall be suspended, and what the program wants to
// know when it comes back.
type Conn struct {
	*net.TCPConn
	Tag uint64
}

// Open begins to answer for the connections that an earlier Pool has left in the
// image, and makes an empty one if there is none.
func Open(o Options) (*Pool, error) {
	if o.Wake == nil || len(o.Listen) == 0 {
		return nil, fmt.Errorf("open pool of connections: no function to wake them, or no address: %w", host.ErrInvalid)
	}
	if o.Table == "" {
		o.Table = "torpor_idle"
	}
	p := &Pool{options: o}
	if err := p.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open pool of connections: %w", err), p.closeParts())
	}
	p.running.Go(func() { p.failure = p.filter.Run(context.Background()) })
	return p, nil
}

func (p *Pool) open() error {
	image, recovery, err := imagefile.Open(p.options.Path)
	if errors.Is(err, host.ErrNotFound) {
		image, err = imagefile.Create(p.options.Path)
	}
	if err != nil {
		return err
	}
	p.image = image
	if recovery != nil {
		p.lost(recovery)
	}
	if p.namespace, err = netns.NewVisitor(p.options.Namespace); err != nil {
		return err
	}
	if err := p.namespace.Do(func() (err error) { p.suspender, err = socket.NewSuspender(); return err }); err != nil {
		return err
	}
	fast := true
	for _, a := range p.options.Listen {
		fast = fast && a.Addr().IsUnspecified()
	}
	guard := make([]netip.AddrPort, len(p.options.Listen))
	for i, a := range p.options.Listen {
		guard[i] = a
		if a.Addr().IsUnspecified() {
			guard[i] = netip.AddrPortFrom(netip.Addr{}, a.Port())
		}
	}
	p.filter, err = filter.Open(filter.Config{Namespace: p.options.Namespace, Table: p.options.Table, Guard: guard, FastPath: fast,
		Queues: p.options.Queues, QueueBase: p.options.QueueBase, Handler: (*handler)(p)})
	return err
}

func (p *Pool) failed(k socket.Key, err error) {
	if p.options.Failed != nil {
		p.options.Failed(k, err)
	}
}

// Len returns how many connections are suspended.
func (p *Pool) Len() int { return p.image.Len() }

// Stats are sizes.
func (p *Pool) Stats() imagefile.Stats { return p.image.Stats() }

// Counters count packets since Open.
func (p *Pool) Counters() filter.Counters { return p.filter.Counters() }

// Suspend suspends a connection and closes it for the program. Errors:
// host.ErrRefused, if it can not be suspended now; then it is as before.
func (p *Pool) Suspend(c *net.TCPConn, tag uint64) error { return p.SuspendAll([]Conn{{c, tag}})[0] }

// SuspendAll is Suspend for many connections, which nobody may use meanwhile,
// and returns an error, or nil, for each. It waits once, some milliseconds,
// until no packet for them is under way: those that arrive meanwhile are lost
// and sent again.
func (p *Pool) SuspendAll(conns []Conn) []error {
	errs := make([]error, len(conns))
	fds := make([]int, len(conns))
	for i := range conns {
		fds[i], errs[i] = descriptor(conns[i].TCPConn)
	}
	p.suspending.Lock()
	defer p.suspending.Unlock()
	all := p.suspender.Suspend(fds...)
	ready := make([]int, 0, len(all))
	for i := range all {
		if errs[i] = errors.Join(errs[i], all[i].Err); errs[i] != nil {
			continue
		}
		if n := len(all[i].Spec.Unread); n > 0 {
			errs[i] = errors.Join(&host.Refusal{Reasons: []string{fmt.Sprintf("%d bytes that the program has not read", n)}}, socket.Resume(fds[i], all[i].Spec))
			continue
		}
		all[i].Spec.Tag = conns[i].Tag
		ready = append(ready, i)
	}
	for part := range slices.Chunk(ready, closeAtOnce) {
		p.keep(part, conns, fds, all, errs)
	}
	p.compact()
	return errs
}

// compact begins to give the space of woken connections back, when it is half of
// the image.
func (p *Pool) compact() {
	if !p.image.Stats().Worthwhile() || !p.compacting.CompareAndSwap(false, true) {
		return
	}
	p.running.Go(func() {
		defer p.compacting.Store(false)
		recovery, err := p.image.Compact()
		if err != nil {
			p.failed(socket.Key{}, err)
			return
		}
		p.lost(recovery)
	})
}

// lost tells of records that are damaged.
func (p *Pool) lost(r *imagefile.Recovery) {
	for _, lost := range r.Lost {
		p.failed(lost.Key, fmt.Errorf("record at %d of the socket image is damaged: %w", lost.Offset, host.ErrCorrupt))
	}
}

// closeAtOnce connections are kept and closed while none can be restored, which
// would find its address taken: for less than a millisecond.
const closeAtOnce = 128

// keep writes the records of some connections and closes them.
func (p *Pool) keep(part []int, conns []Conn, fds []int, all []socket.Suspended, errs []error) {
	records := make([]*socket.Spec, len(part))
	for i, n := range part {
		records[i] = all[n].Spec
	}
	p.closing.Lock()
	defer p.closing.Unlock()
	err := p.image.AddAll(records)
	for _, n := range part {
		if err != nil {
			errs[n] = errors.Join(err, socket.Resume(fds[n], all[n].Spec))
			continue
		}
		errs[n] = conns[n].Close() // silent: it is in repair mode
	}
}

func descriptor(c *net.TCPConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// Take gives a suspended connection back to the program, which wants to send
// something. Errors: host.ErrNotFound, if it is not suspended (any more).
func (p *Pool) Take(k socket.Key) (c *net.TCPConn, tag uint64, err error) {
	err = p.namespace.Do(func() error {
		c, tag, err = p.take(k)
		return err
	})
	return c, tag, err
}

// take is Take in the namespace.
func (p *Pool) take(k socket.Key) (c *net.TCPConn, tag uint64, err error) {
	lock := p.lock(k)
	lock.Lock()
	defer lock.Unlock()
	p.closing.RLock()
	defer p.closing.RUnlock()
	spec, err := p.image.Get(k)
	if err != nil {
		if errors.Is(err, host.ErrCorrupt) {
			err = errors.Join(err, p.image.Remove(k))
			p.failed(k, err)
		}
		return nil, 0, err
	}
	c, err = p.restore(&spec)
	if err != nil {
		p.failed(k, err)
		return nil, 0, err
	}
	return c, spec.Tag, nil
}

// lock is held while a connection is restored.
func (p *Pool) lock(k socket.Key) *sync.Mutex {
	return &p.taking[(int(k.Remote.Port())^int(k.Local.Port()))%len(p.taking)]
}

// restore makes the connection. Its record goes before it can send or receive:
// a program that ends here leaves no record of a connection that went on.
func (p *Pool) restore(spec *socket.Spec) (*net.TCPConn, error) {
	fd, err := socket.Restore(spec)
	if err != nil {
		return nil, errors.Join(err, p.image.Remove(spec.Key))
	}
	err = p.image.Remove(spec.Key)
	if err == nil {
		err = socket.Resume(fd, spec)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// Close stops answering and leaves the connections to the next Pool of this
// image; their peers repeat what they send meanwhile.
func (p *Pool) Close() error {
	err := p.closeParts()
	return errors.Join(err, p.failure)
}

// Reset ends all suspended connections, as the end of a process without a Pool
// would, and closes the Pool.
func (p *Pool) Reset() error {
	var errs []error
	for k := range p.image.All() {
		c, _, err := p.Take(k)
		if err == nil {
			err = c.Close()
		} else if errors.Is(err, host.ErrNotFound) {
			err = nil // woken meanwhile
		}
		errs = append(errs, err)
	}
	errs = append(errs, p.filter.Remove())
	return errors.Join(append(errs, p.closeParts())...)
}

func (p *Pool) closeParts() error {
	var errs []error
	if p.filter != nil {
		errs = append(errs, p.filter.Close())
		p.running.Wait()
	}
	if p.suspender != nil {
		errs = append(errs, p.suspender.Close())
	}
	if p.namespace != nil {
		errs = append(errs, p.namespace.Close())
	}
	if p.image != nil {
		errs = append(errs, p.image.Close())
	}
	return errors.Join(errs...)
}

// handler is the Pool as the filter sees it.
type handler Pool

// Find implements filter.Handler. A connection that the program is taking is
// not suspended when it has been restored, and not earlier.
func (h *handler) Find(k socket.Key) (*socket.Spec, bool) {
	lock := (*Pool)(h).lock(k)
	lock.Lock()
	defer lock.Unlock()
	if !h.image.Has(k) {
		return nil, false
	}
	spec, err := h.image.Get(k)
	if err != nil {
		return nil, false
	}
	return &spec, true
}

// Wake implements filter.Handler.
func (h *handler) Wake(k socket.Key, _ segment.Reason) error {
	c, tag, err := (*Pool)(h).take(k)
	if errors.Is(err, host.ErrNotFound) {
		return nil // the program took it
	}
	if err != nil {
		return err
	}
	h.options.Wake(c, tag)
	return nil
}

// Update implements filter.Handler.
func (h *handler) Update(k socket.Key, w socket.Window) {
	if err := h.image.SetWindow(k, w); err != nil && !errors.Is(err, host.ErrNotFound) {
		(*Pool)(h).failed(k, err)
	}
}
