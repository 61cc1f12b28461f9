package logvolume

import (
	"slices"

	"torpor/block/logvolume/format"
)

// change is something acknowledged that is not in a row yet: of data, with a
// page for each block, or a hole.
type change struct {
	sequence format.Sequence
	kind     format.ExtentKind
	layer    format.LayerID
	start    format.Block
	count    uint32
	pages    []*page
}

func (c *change) end() format.Block { return c.start + format.Block(c.count) }

func (c *change) extent() format.Extent {
	return format.Extent{Kind: c.kind, Layer: c.layer, Start: uint64(c.start), Count: c.count}
}

// cutOff takes the first n pages off a change, and returns them as one. A hole
// is returned whole.
func (c *change) cutOff(n int) change {
	first := *c
	if c.kind == format.KindData {
		first.pages, first.count = c.pages[:n], uint32(n)
		c.pages, c.count, c.start = c.pages[n:], c.count-uint32(n), c.start+format.Block(n)
	}
	return first
}

// blockKey names a block of a layer.
type blockKey uint64

func keyOf(layer format.LayerID, at format.Block) blockKey {
	return blockKey(layer)<<40 | blockKey(at)
}

// queue holds changes in order, and what the blocks that they touch read as: a
// page of the index, else zeros if a hole is over them. It has no lock.
type queue struct {
	changes []change
	blocks  int // pages in changes
	index   map[blockKey]*page
	holes   []change // those of changes, in order
}

func (q *queue) add(c change) {
	q.changes = append(q.changes, c)
	if c.kind == format.KindHole {
		q.uncover(c)
		q.holes = append(q.holes, c)
		return
	}
	q.blocks += len(c.pages)
	for i, p := range c.pages {
		q.index[keyOf(c.layer, c.start+format.Block(i))] = p
	}
}

// uncover removes what the index says about the blocks of a hole.
func (q *queue) uncover(c change) {
	if len(q.index) < int(c.count) {
		for key := range q.index {
			if key >= keyOf(c.layer, c.start) && key < keyOf(c.layer, c.end()) {
				delete(q.index, key)
			}
		}
		return
	}
	for at := c.start; at < c.end(); at++ {
		delete(q.index, keyOf(c.layer, at))
	}
}

// lookup says what a block reads as; queued is false if the map knows.
func (q *queue) lookup(layer format.LayerID, at format.Block) (p *page, queued bool) {
	if p, queued = q.index[keyOf(layer, at)]; queued {
		return p, true
	}
	for i := range q.holes {
		if h := &q.holes[i]; h.layer == layer && at >= h.start && at < h.end() {
			return zeroPage, true
		}
	}
	return nil, false
}

// pop takes the first change off.
func (q *queue) pop() {
	q.changes[0] = change{}
	q.changes = q.changes[1:]
}

// forget ends what the queue knows about a change, or a part of one: the map does.
func (q *queue) forget(c change) {
	if c.kind == format.KindHole {
		q.holes = slices.Delete(q.holes, 0, 1)
		return
	}
	for i, p := range c.pages {
		key := keyOf(c.layer, c.start+format.Block(i))
		if q.index[key] == p {
			delete(q.index, key)
		}
	}
}
