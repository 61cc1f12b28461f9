package nbd

import (
	"sync"

	"torpor/block"
)

// ram is a device in memory that knows its holes. What a test sets of wait is
// called before each request.
type ram struct {
	info block.Info
	wait func(verb string) error

	mu     sync.RWMutex
	memory []byte
	there  []bool // by block
	kinds  map[string]int
}

func newRAM(sizeBytes int64, blockBytes int) *ram {
	return &ram{
		info:   block.Info{SizeBytes: sizeBytes, BlockBytes: blockBytes, PreferredBytes: max(blockBytes, 4096), Discards: true},
		memory: make([]byte, sizeBytes),
		there:  make([]bool, (sizeBytes+block.BlockBytes-1)/block.BlockBytes),
		kinds:  map[string]int{},
	}
}

func (d *ram) Info() block.Info { return d.info }

func (d *ram) begin(verb string, r block.Range) error {
	if d.wait != nil {
		if err := d.wait(verb); err != nil {
			return err
		}
	}
	return d.info.Check(r)
}

func (d *ram) ReadAt(p []byte, off block.Offset) error {
	if err := d.begin("read", block.Range{Start: off, LenBytes: int64(len(p))}); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	copy(p, d.memory[off:])
	return nil
}

func (d *ram) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	r := block.Range{Start: off, LenBytes: int64(len(p))}
	if err := d.begin("write", r); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if flags&block.FUA != 0 {
		d.kinds["fua"]++
	}
	d.kinds["write"]++
	copy(d.memory[off:], p)
	d.mark(r, true)
	return nil
}

func (d *ram) mark(r block.Range, there bool) {
	for b := r.Start / block.BlockBytes; b*block.BlockBytes < r.End(); b++ {
		whole := b*block.BlockBytes >= r.Start && (b+1)*block.BlockBytes <= r.End()
		if there || whole {
			d.there[b] = there
		}
	}
}

func (d *ram) clear(verb string, r block.Range) error {
	if err := d.begin(verb, r); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kinds[verb]++
	clear(d.memory[r.Start:r.End()])
	d.mark(r, false)
	return nil
}

func (d *ram) Zero(r block.Range, flags block.Flags) error {
	if flags&block.FastOnly != 0 && flags&block.KeepAllocated != 0 {
		return block.ErrUnsupported
	}
	return d.clear("zero", r)
}

func (d *ram) Discard(r block.Range, _ block.Flags) error { return d.clear("discard", r) }

func (d *ram) Flush() error {
	if err := d.begin("flush", block.Range{}); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kinds["flush"]++
	return nil
}

// count says how often something was done.
func (d *ram) count(verb string) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.kinds[verb]
}

func (d *ram) Status(r block.Range) ([]block.Extent, error) {
	if err := d.info.Check(r); err != nil {
		return nil, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	var extents []block.Extent
	for start := r.Start; start < r.End(); {
		end := min((start/block.BlockBytes+1)*block.BlockBytes, r.End())
		kind := block.Hole
		if d.there[start/block.BlockBytes] {
			kind = block.Data
		}
		extents = append(extents, block.Extent{Range: block.Range{Start: start, LenBytes: int64(end - start)}, Kind: kind})
		start = end
	}
	return extents, nil
}

func (d *ram) Close() error { return nil }
