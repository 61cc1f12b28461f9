package logvolume

import (
	"fmt"

	"torpor/block/logvolume/blockmap"
	"torpor/block/logvolume/format"
)

// load reads a leaf of the map. Log.mu is held, and released meanwhile: what was
// looked up before has to be looked up again.
func (l *Log) load(missing *blockmap.Missing) error {
	buffer := l.buffers.get(format.BlockBytes)
	defer l.buffers.put(buffer)
	pin := l.pin(missing.At.Location())
	l.mu.Unlock()
	err := l.readEntries([]format.Entry{missing.At}, [][]byte{buffer})
	l.mu.Lock()
	pin.readers.Add(-1)
	if err != nil {
		return fmt.Errorf("read leaf %d of layer %d: %w", missing.Leaf, missing.Layer, err)
	}
	leaf := new([format.LeafEntries]format.Entry)
	if err := format.DecodeLeaf(buffer, leaf); err != nil {
		return fmt.Errorf("read leaf %d of layer %d: %w", missing.Leaf, missing.Layer, err)
	}
	l.blocks.Put(*missing, leaf)
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
		absent := l.blocks.Absent(layer, start, count, 1)
		if len(absent) == 0 {
			return released, nil
		}
		released = true
		if err := l.load(&absent[0]); err != nil {
			return true, err
		}
	}
}

// loadQueued has all leaves in memory that the next row changes.
func (l *Log) loadQueued() error {
	for {
		released, blocks := false, 0
		for i := 0; i < len(l.queue.changes) && blocks <= l.stripeBlocks(); i++ {
			c := l.queue.changes[i]
			again, err := l.loadRange(c.layer, c.start, uint64(c.count))
			if err != nil {
				return err
			}
			released = released || again
			blocks += len(c.pages)
		}
		if !released {
			return nil
		}
	}
}

// missingLeaf is a leaf of the map that has to be read.
type missingLeaf = blockmap.Missing

func layerSpec(y *layer) blockmap.LayerSpec {
	return blockmap.LayerSpec{ID: y.id, Parent: y.parent, SizeBlocks: y.sizeBlocks}
}
