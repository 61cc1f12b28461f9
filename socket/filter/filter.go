package filter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"torpor/kernel/netns"
	"torpor/kernel/nfqueue"
	"torpor/kernel/rawip"
)

// Filter is the filter of one network namespace.
type Filter struct {
	config    Config
	namespace *netns.Visitor
	readers   []*reader
	sender    *rawip.Sender
	tally     tally
	running   sync.WaitGroup

	mu     sync.Mutex
	closed bool
}

const (
	copyBytes   = 256   // the longest headers that are seen in practice
	maxPackets  = 65535 // that wait in a queue; the kernel takes no more
	bufferBytes = 64 << 20
)

// Open takes the queues, then replaces the table. Nothing is read before Run;
// packets wait. Errors: EPERM if somebody has a queue of these numbers.
func Open(config Config) (*Filter, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open filter: %w", err)
	}
	f := &Filter{config: config}
	if err := f.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open filter: %w", err)
	}
	return f, nil
}

func (f *Filter) open() (err error) {
	if f.namespace, err = netns.NewVisitor(f.config.Namespace); err != nil {
		return err
	}
	// Not by a visit: the caller may be in a namespace of its own.
	err = netns.Do(fmt.Sprintf("/proc/self/fd/%d", f.namespace.Descriptor()), func() (err error) {
		if f.sender, err = rawip.Open(); err != nil {
			return err
		}
		for i := range f.config.Queues {
			q, err := nfqueue.Open(nfqueue.Config{Number: f.config.QueueBase + uint16(i), CopyBytes: copyBytes, MaxPackets: maxPackets, BufferBytes: bufferBytes})
			if err != nil {
				return err
			}
			f.readers = append(f.readers, newReader(f, q))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return replaceTable(f.namespace.Descriptor(), &f.config)
}

// Run reads the queues until the context ends or Close is called, and returns
// nil then. It is called once. An error of one queue stops all.
func (f *Filter) Run(ctx context.Context) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.running.Add(1)
	f.mu.Unlock()
	defer f.running.Done()
	group, ctx := errgroup.WithContext(ctx)
	stopped := context.AfterFunc(ctx, f.stop)
	defer stopped()
	for _, r := range f.readers {
		group.Go(r.run)
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("run filter: %w", err)
	}
	return nil
}

// Still runs g while no packet is between Find and its verdict: what Find has
// said is carried out. Who suspends a connection does it in here, from reading
// the socket to closing it, and Find knows the connection afterwards. Otherwise
// a packet for which Find said no may be released to a socket that is gone, or
// to one that was already read.
//
// It waits for a Wake under way. A Handler must not call it, nor may the caller
// hold a lock that the Handler takes.
func (f *Filter) Still(g func() error) error {
	for _, r := range f.readers {
		r.inHand.Lock()
		defer r.inHand.Unlock()
	}
	return g()
}

func (f *Filter) stop() {
	for _, r := range f.readers {
		r.queue.Stop() // fails on a closed one only
	}
}

// Counters returns what happened so far.
func (f *Filter) Counters() Counters {
	c := f.tally.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return c
	}
	for _, r := range f.readers {
		if n, err := r.queue.Lost(); err == nil {
			c.Lost += uint64(n)
		}
	}
	return c
}

// Close stops the readers, waits for them and gives the queues up. The rules
// stay: packets of suspended connections are dropped until somebody opens the
// table again. A Handler must not call it. Closing again changes nothing.
func (f *Filter) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	f.mu.Unlock()
	f.stop()
	f.running.Wait()
	var errs []error
	for _, r := range f.readers {
		errs = append(errs, r.queue.Close())
	}
	if f.sender != nil {
		errs = append(errs, f.sender.Close())
	}
	if f.namespace != nil {
		errs = append(errs, f.namespace.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close filter: %w", err)
	}
	return nil
}

// Remove lets the kernel have every packet, waits until those that are held
// were seen to, deletes the table and closes the Filter, which must be open and
// running. A Handler must not call it.
func (f *Filter) Remove() error {
	return errors.Join(f.drain(), removeTable(f.namespace.Descriptor(), f.config.Table), f.Close())
}

// drainLimit is longer than a Handler takes.
const drainLimit = 30 * time.Second

// drain makes the rules send nothing to the queues any more, and waits until
// they are empty: the kernel drops what is held when a chain ends.
func (f *Filter) drain() error {
	if err := emptyChains(f.namespace.Descriptor(), f.config.Table); err != nil {
		return err
	}
	return f.namespace.Do(func() error {
		for deadline, quiet := time.Now().Add(drainLimit), 0; quiet < drainedTimes; time.Sleep(time.Millisecond) {
			held := 0
			for i := range f.readers {
				n, err := nfqueue.Waiting(f.config.QueueBase + uint16(i))
				if err != nil {
					return err
				}
				held += n
			}
			if quiet++; held > 0 {
				quiet = 0
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("remove filter: %d packets are still held", held)
			}
		}
		return nil
	})
}

// drainedTimes the queues must be empty: another processor may be at a rule that
// is gone.
const drainedTimes = 3

// Remove deletes the table of a Filter that is not open. One that does not
// exist is not an error.
func Remove(namespace, table string) error {
	ns, err := netns.NewVisitor(namespace)
	if err != nil {
		return fmt.Errorf("remove filter: %w", err)
	}
	defer ns.Close()
	return removeTable(ns.Descriptor(), table)
}
