package logvolume

import (
	"cmp"
	"fmt"
	"slices"

	"torpor/block/logvolume/blockmap"
	"torpor/block/logvolume/format"
)

// load reads a leaf of the map. Log.mu is held, and released meanwhile: what was
// looked up before has to be looked up again.
func (l *Log) load(missing *blockmap.Missing) error { return l.loadAll([]missingLeaf{*missing}) }

// maxLoad is how many leaves are read at once. One after another 50,000 of them
// took 4 s of a recovery.
const maxLoad = 256

// loadAll is load of several leaves, at most maxLoad, in any order, some of them
// perhaps more than once.
func (l *Log) loadAll(missing []missingLeaf) error {
	slices.SortFunc(missing, func(a, b missingLeaf) int { return cmp.Compare(a.At.Location(), b.At.Location()) })
	missing = slices.Compact(missing)
	buffer := l.buffers.get(len(missing) * format.BlockBytes)
	defer l.buffers.put(buffer)
	entries, blocks, pins := make([]format.Entry, len(missing)), make([][]byte, len(missing)), make([]*segment, len(missing))
	for i, m := range missing {
		entries[i], blocks[i], pins[i] = m.At, buffer[i*format.BlockBytes:(i+1)*format.BlockBytes], l.pin(m.At.Location())
	}
	l.mu.Unlock()
	err := l.readEntries(entries, blocks)
	l.mu.Lock()
	for _, pin := range pins {
		pin.readers.Add(-1)
	}
	for i, m := range missing {
		leaf := new([format.LeafEntries]format.Entry)
		if err == nil {
			err = format.DecodeLeaf(blocks[i], leaf)
		}
		if err != nil {
			return fmt.Errorf("read leaf %d of layer %d: %w", m.Leaf, m.Layer, err)
		}
		l.blocks.Put(m, leaf)
	}
	return nil
}

// pin keeps a segment from being released. Its holder takes one off readers.
func (l *Log) pin(at format.Location) *segment {
	s := l.segmentOf(at)
	s.readers.Add(1)
	return s
}

// loadRange has all leaves of a layer's range in memory when it returns, with
// Log.mu held ever since it looked. It says whether Log.mu was released before.
func (l *Log) loadRange(layer format.LayerID, start format.Block, count uint64) (released bool, err error) {
	for {
		absent := l.blocks.Absent(layer, start, count, maxLoad)
		if len(absent) == 0 {
			return released, nil
		}
		released = true
		if err := l.loadAll(absent); err != nil {
			return true, err
		}
	}
}

// loadQueued has all leaves in memory that the next row changes.
func (l *Log) loadQueued() error {
	for {
		var absent []missingLeaf
		for i, blocks := 0, 0; i < len(l.queue.changes) && blocks <= l.stripeBlocks() && len(absent) < maxLoad; i++ {
			c := l.queue.changes[i]
			absent = append(absent, l.blocks.Absent(c.layer, c.start, uint64(c.count), maxLoad-len(absent))...)
			blocks += len(c.pages)
		}
		if len(absent) == 0 {
			return nil
		}
		if err := l.loadAll(absent); err != nil {
			return err
		}
	}
}

// missingLeaf is a leaf of the map that has to be read.
type missingLeaf = blockmap.Missing

func layerSpec(y *layer) blockmap.LayerSpec {
	return blockmap.LayerSpec{ID: y.id, Parent: y.parent, SizeBlocks: y.sizeBlocks}
}
