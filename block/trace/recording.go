package trace

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"torpor/block"
	"torpor/block/memory"
)

// Recording is what happened on a group of devices. It may be used while they
// are, from any number of goroutines.
type Recording struct {
	disks []disk

	mu    sync.Mutex
	clock moment
	ops   []*op
	ends  []moment // of all that ended, in order
	spill *os.File
	spilt int64 // bytes in spill
}

// disk is one device of the group.
type disk struct {
	info block.Info
	base *memory.Device // what it held at first
}

// moment counts beginnings and ends of operations of the whole group.
type moment int64

const never moment = 1<<63 - 1

// op is a change or a flush. Operations of a recording are in the order in which
// they began, which for those that overlap is the one in which they were done.
type op struct {
	disk  int
	flush bool
	block.Range
	fua bool
	// soft changes need not be seen even when they are durable: discards on
	// devices that do not say what is read afterwards.
	soft    bool
	content content
	begin   moment
	end     moment // never, for what failed
}

// content is what a change wrote.
type content struct {
	bytes  []byte // nil: zeros, unless it was spilt
	spilt  bool
	offset int64 // in the spill file
}

// Points is how many operations have ended, successfully or not.
func (r *Recording) Points() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ends)
}

// begin notes that an operation is about to be handed on.
func (r *Recording) begin(o *op, p [][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.store(o, p); err != nil {
		return err
	}
	r.clock++
	o.begin, o.end = r.clock, never
	r.ops = append(r.ops, o)
	return nil
}

// end notes that an operation ended.
func (r *Recording) end(o *op, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	if err == nil {
		o.end = r.clock
	}
	r.ends = append(r.ends, r.clock)
}

// store copies what is written.
func (r *Recording) store(o *op, p [][]byte) error {
	if p == nil {
		return nil
	}
	if r.spill == nil {
		o.content.bytes = make([]byte, 0, o.LenBytes)
		for _, b := range p {
			o.content.bytes = append(o.content.bytes, b...)
		}
		return nil
	}
	o.content = content{spilt: true, offset: r.spilt}
	for _, b := range p {
		n, err := r.spill.WriteAt(b, r.spilt)
		r.spilt += int64(n)
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	return nil
}

// load returns what a change wrote.
func (r *Recording) load(o *op) ([]byte, error) {
	switch {
	case o.content.spilt:
		b := make([]byte, o.LenBytes)
		if _, err := r.spill.ReadAt(b, o.content.offset); err != nil {
			return nil, fmt.Errorf("read record: %w", err)
		}
		return b, nil
	case o.content.bytes == nil:
		return make([]byte, o.LenBytes), nil
	}
	return o.content.bytes, nil
}

// Close gives the spill file back. The devices must be closed before; clones
// live on.
func (r *Recording) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spill == nil {
		return nil
	}
	return r.spill.Close()
}

// openSpill makes a file without a name.
func openSpill(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "torpor-trace-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
