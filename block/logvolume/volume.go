package logvolume

import (
	"fmt"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// Volume is a virtual disk in a log. It is a block.Device; Close flushes it and
// leaves it in the log.
type Volume struct {
	log  *Log
	name string

	// guarded by Log.mu
	layer  *layer // what is written to
	closed bool
	users  int // calls under way
}

var (
	_ block.AsyncReader = (*Volume)(nil)
	_ block.AsyncWriter = (*Volume)(nil)
)

// maxChangeBlocks bounds the data of one change: longer writes are several.
const maxChangeBlocks = 256

// maxHoleBlocks bounds one hole, by the leaves that it may have to change at once.
const maxHoleBlocks = 64 * format.LeafEntries

// Info says what the volume is.
func (v *Volume) Info() block.Info {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	return v.infoLocked()
}

func (v *Volume) infoLocked() block.Info {
	return block.Info{
		SizeBytes:      int64(v.layer.sizeBlocks) * format.BlockBytes,
		BlockBytes:     format.BlockBytes,
		PreferredBytes: int(v.log.geometry.StripeBytes),
		Volatile:       true,
		Discards:       true,
	}
}

// enter begins a call for a range, and leave ends it. It returns the layer to read.
func (v *Volume) enter(r block.Range) (format.LayerID, error) {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	if v.closed || v.log.closing {
		return 0, fmt.Errorf("volume %s: %w", v.name, block.ErrClosed)
	}
	if err := v.infoLocked().Check(r); err != nil {
		return 0, fmt.Errorf("volume %s: %w", v.name, err)
	}
	v.users++
	return v.layer.id, nil
}

func (v *Volume) leave() {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	v.users--
	if v.closed || v.log.closing {
		v.log.progress.Broadcast()
	}
}

// ReadAt fills p.
func (v *Volume) ReadAt(p []byte, off block.Offset) error {
	for {
		n := min(len(p), maxReadBlocks*format.BlockBytes)
		err := block.Wait(func(done func(error)) { v.startRead(p[:n], off, done) })
		if err != nil || n == len(p) {
			return err
		}
		p, off = p[n:], off+block.Offset(n)
	}
}

// maxReadBlocks bounds how much is read at once.
const maxReadBlocks = 1024

// StartRead is ReadAt that need not be waited for.
func (v *Volume) StartRead(p []byte, off block.Offset, done func(error)) {
	if len(p) > maxReadBlocks*format.BlockBytes {
		go func() { done(v.ReadAt(p, off)) }()
		return
	}
	v.startRead(p, off, done)
}

func (v *Volume) startRead(p []byte, off block.Offset, done func(error)) {
	layer, err := v.enter(block.Range{Start: off, LenBytes: int64(len(p))})
	if err != nil {
		done(err)
		return
	}
	v.log.startBlocks(layer, format.Block(off/format.BlockBytes), p, func(err error) {
		v.leave()
		if err != nil {
			err = fmt.Errorf("read volume %s at %d: %w", v.name, off, err)
		}
		done(err)
	})
}

// WriteAt writes p. With ErrNoSpace nothing of a change was written; of a write
// of more than 1 MiB some may have been.
func (v *Volume) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	if _, err := v.enter(block.Range{Start: off, LenBytes: int64(len(p))}); err != nil {
		return err
	}
	defer v.leave()
	var through format.Sequence
	for len(p) > 0 {
		n := min(len(p), maxChangeBlocks*format.BlockBytes)
		c := v.changeOf(p[:n], off)
		var err error
		if through, err = v.change(c); err != nil {
			v.log.pages.put(c.pages)
			return fmt.Errorf("write volume %s at %d: %w", v.name, off, err)
		}
		p, off = p[n:], off+block.Offset(n)
	}
	return v.settle(flags, through)
}

// StartWrite is WriteAt that need not be waited for. Small writes that are not FUA
// are done when it returns, unless memory has no room for them.
func (v *Volume) StartWrite(p [][]byte, off block.Offset, flags block.Flags, done func(error)) {
	if flags&block.FUA == 0 && len(p) == 1 && len(p[0]) <= maxChangeBlocks*format.BlockBytes {
		v.startChange(p[0], off, done)
		return
	}
	go func() { done(v.writeAll(p, off, flags)) }()
}

func (v *Volume) writeAll(p [][]byte, off block.Offset, flags block.Flags) error {
	for _, b := range p {
		if err := v.WriteAt(b, off, flags); err != nil {
			return err
		}
		off += block.Offset(len(b))
	}
	return nil
}

// startChange writes p as one change.
func (v *Volume) startChange(p []byte, off block.Offset, done func(error)) {
	if _, err := v.enter(block.Range{Start: off, LenBytes: int64(len(p))}); err != nil || len(p) == 0 {
		if err == nil {
			v.leave()
		}
		done(err)
		return
	}
	c := v.changeOf(p, off)
	end := func(err error) {
		if err != nil {
			v.log.pages.put(c.pages)
			err = fmt.Errorf("write volume %s at %d: %w", v.name, off, err)
		}
		v.leave()
		done(err)
	}
	if begun, err := v.tryChange(c); begun {
		end(err)
		return
	}
	go func() {
		_, err := v.change(c)
		end(err)
	}()
}

// changeOf copies p for a change.
func (v *Volume) changeOf(p []byte, off block.Offset) change {
	return change{kind: format.KindData, start: format.Block(off / format.BlockBytes), count: uint32(len(p) / format.BlockBytes), pages: v.log.pages.pagesOf(p)}
}

// settle makes changes durable if the flags want it.
func (v *Volume) settle(flags block.Flags, through format.Sequence) error {
	if flags&block.FUA == 0 {
		return nil
	}
	if err := v.log.flushThrough(through); err != nil {
		return fmt.Errorf("flush volume %s: %w", v.name, err)
	}
	return nil
}

// Zero makes a range read as zeros. It is as good as Discard: a log reserves no space.
func (v *Volume) Zero(r block.Range, flags block.Flags) error { return v.Discard(r, flags) }

// Discard gives space back. The range reads as zeros then.
func (v *Volume) Discard(r block.Range, flags block.Flags) error {
	if _, err := v.enter(r); err != nil {
		return err
	}
	defer v.leave()
	var through format.Sequence
	at, rest := format.Block(r.Start/format.BlockBytes), r.LenBytes/format.BlockBytes
	for rest > 0 {
		n := min(rest, maxHoleBlocks)
		var err error
		if through, err = v.change(change{kind: format.KindHole, start: at, count: uint32(n)}); err != nil {
			return fmt.Errorf("discard of volume %s: %w", v.name, err)
		}
		at, rest = at+format.Block(n), rest-n
	}
	return v.settle(flags, through)
}

// change queues a change, of the volume's top layer, once there is room for it.
func (v *Volume) change(c change) (format.Sequence, error) {
	l := v.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for (l.gate > 0 || !l.hasBudget(len(c.pages))) && l.failed == nil {
			l.progress.Wait()
		}
		c.layer = v.layer.id
		if l.failed != nil {
			return 0, l.failed
		}
		if err := l.admit(c); err != nil {
			return 0, err
		}
		if l.gate == 0 && c.layer == v.layer.id {
			return l.enqueue(c), nil
		}
	}
}

// tryChange is change that does not wait: then nothing was begun.
func (v *Volume) tryChange(c change) (begun bool, err error) {
	l := v.log
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return true, l.failed
	case l.gate > 0 || !l.hasBudget(len(c.pages)) || !l.hasSpaceFor(c):
		return false, nil
	}
	c.layer = v.layer.id
	l.enqueue(c)
	return true, nil
}

// enqueue gives a change the next number.
func (l *Log) enqueue(c change) format.Sequence {
	l.lastSequence++
	c.sequence = l.lastSequence
	l.queue.add(c)
	l.dirtyPages += len(c.pages)
	l.counters.UserWritten += uint64(len(c.pages))
	if l.mustCut() {
		l.work.Signal()
	}
	return c.sequence
}

// hasBudget says whether so many pages may become dirty. One change always may.
func (l *Log) hasBudget(pages int) bool {
	budget := int(l.options.DirtyBytes / format.BlockBytes)
	return len(l.queue.changes) < 4*maxQueuedChanges && (l.dirtyPages == 0 || l.dirtyPages+pages <= budget)
}

// Flush makes durable all changes that have returned.
func (v *Volume) Flush() error {
	if _, err := v.enter(block.Range{}); err != nil {
		return err
	}
	defer v.leave()
	v.log.mu.Lock()
	through := v.log.lastSequence
	v.log.mu.Unlock()
	return v.settle(block.FUA, through)
}

// Status describes a range: what is nowhere in the log is a hole.
func (v *Volume) Status(r block.Range) ([]block.Extent, error) {
	if _, err := v.enter(r); err != nil {
		return nil, err
	}
	defer v.leave()
	var extents []block.Extent
	for at := r.Start; at < r.End(); {
		n := min(int64(r.End()-at), format.LeafEntries*format.BlockBytes)
		var err error
		if extents, err = v.status(extents, block.Range{Start: at, LenBytes: n}); err != nil {
			return nil, err
		}
		at += block.Offset(n)
	}
	return extents, nil
}

// status adds the extents of up to one leaf's entries.
func (v *Volume) status(extents []block.Extent, r block.Range) ([]block.Extent, error) {
	l := v.log
	l.mu.Lock()
	defer l.mu.Unlock()
	var entries [format.LeafEntries]format.Entry
	start, n := format.Block(r.Start/format.BlockBytes), r.LenBytes/format.BlockBytes
	for {
		_, missing := l.blocks.LookupRange(v.layer.id, start, entries[:n])
		if missing == nil {
			break
		}
		if err := l.load(missing); err != nil {
			return nil, fmt.Errorf("status of volume %s: %w", v.name, err)
		}
	}
	for i, e := range entries[:n] {
		kind := block.Hole
		if p, queued := l.queue.lookup(v.layer.id, start+format.Block(i)); queued && p != zeroPage || !queued && e.Mapped() {
			kind = block.Data
		}
		at := block.Range{Start: r.Start + block.Offset(i)*format.BlockBytes, LenBytes: format.BlockBytes}
		if last := len(extents) - 1; last >= 0 && extents[last].Kind == kind {
			extents[last].LenBytes += at.LenBytes
		} else {
			extents = append(extents, block.Extent{Range: at, Kind: kind})
		}
	}
	return extents, nil
}

// Close flushes the volume and ends its use. It waits for calls under way.
func (v *Volume) Close() error {
	err := v.Flush()
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	if v.closed {
		return err
	}
	v.closed = true
	for v.users > 0 {
		v.log.progress.Wait()
	}
	return err
}
