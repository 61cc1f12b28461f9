package logvolume

import (
	"torpor/block"
	"torpor/block/logvolume/format"
)

// fillPercent is how much of the segments useful data may take: cleaning needs
// the rest. At 90 % it moves some 5 blocks for each that is written at random.
const fillPercent = 93

// capacity is how many useful blocks the log takes: all segments but those that
// are reserved or open, less a margin for headers and cleaning.
func (l *Log) capacity() int {
	segments := l.totalSegments() - l.policy.Low - 2*format.StreamCount
	perSegment := l.geometry.SegmentBlocks() * (l.stripeBlocks() - 2) / l.stripeBlocks()
	return max(0, segments*perSegment*fillPercent/100)
}

// admit refuses a change that might not find a place. Blocks that are queued are
// counted as new ones first, and looked up if that is too much. Overwriting needs
// no space but for leaves that change, for a time. Log.mu is held, and released
// while the queue is cut, leaves are read, and a checkpoint is written.
func (l *Log) admit(c change) error {
	if l.hasSpaceFor(c) {
		return nil
	}
	for l.queue.blocks > 0 && l.failed == nil {
		l.cutThrough = l.lastSequence
		l.work.Broadcast()
		l.progress.Wait()
	}
	if l.failed != nil {
		return l.failed
	}
	if _, err := l.loadRange(c.layer, c.start, uint64(c.count)); err != nil {
		return err
	}
	need, dirty := l.needOf(c), l.dirtyLeaves()
	switch missing := l.taken() + need - l.spaceBlocks; {
	case missing <= 0, need == 0 && dirty <= l.geometry.SegmentBlocks()/2:
		return nil
	case missing > dirty && need > 0:
		return block.ErrNoSpace
	}
	l.mu.Unlock()
	err := l.checkpoint()
	l.mu.Lock()
	if err == nil && need > 0 && l.taken()+need > l.spaceBlocks {
		return block.ErrNoSpace
	}
	return err
}

// hasSpaceFor says whether there is space for a change if all of it is new.
func (l *Log) hasSpaceFor(c change) bool {
	return len(c.pages) == 0 || l.taken()+len(c.pages)+leafBound(len(c.pages), 1) <= l.spaceBlocks
}

// needOf is how many blocks more have to have a place after a change: new ones,
// and if there are some, leaves. Those that there are have to be in memory.
func (l *Log) needOf(c change) int {
	fresh := 0
	for at := c.start; at < c.end(); at++ {
		if own, _ := l.blocks.Own(c.layer, at); !own.Mapped() {
			fresh++
		}
	}
	if fresh == 0 {
		return 0
	}
	return fresh + leafBound(fresh, 1)
}

// taken is how many blocks have to have a place: useful data, what is queued, the
// map, and its leaves that the next checkpoint writes before the old ones go.
func (l *Log) taken() int {
	return l.live + l.queue.blocks + leafBound(l.queue.blocks, len(l.queue.changes)) + l.meta + l.dirtyLeaves()
}

func (l *Log) dirtyLeaves() int { return int(l.blocks.DirtyBytes() / format.BlockBytes) }

// unwrittenLeaves are those that only a checkpoint can take out of memory.
func (l *Log) unwrittenLeaves() int {
	if l.frozen == nil {
		return l.dirtyLeaves()
	}
	return l.dirtyLeaves() + l.frozen.Len()
}

// leafBound is how many leaves so many blocks in so many changes are in at most.
func leafBound(blocks, changes int) int {
	return min(blocks, blocks/format.LeafEntries+2*changes)
}

// crowded says whether the leaves that are not written yet, and some more, might not
// find a place. The checkpoint that writes them is what gives space back, so it must not
// run out of space itself: changes wait for it. Some fit into the segment that the
// meta stream has reserved and the one that only it may reserve.
func (l *Log) crowded(more int) bool {
	unwritten := l.unwrittenLeaves()
	if unwritten == 0 || unwritten+more <= l.geometry.SegmentBlocks() {
		return false
	}
	// Each stream of data may reserve one meanwhile; a quarter is for headers.
	spare := l.freeSegments() - format.StreamCount
	return unwritten+more > spare*l.geometry.SegmentBlocks()*3/4
}

// mapReserve is how many segments are kept free, besides those of the policy, for
// a checkpoint that writes all leaves anew: with fewer, random writes to a log that
// is nearly full have it written over and over, a block of the map for each of theirs.
func (l *Log) mapReserve() int {
	leaves := l.meta + l.dirtyLeaves()
	return min(leaves*4/3/l.geometry.SegmentBlocks()+format.StreamCount, l.totalSegments()/32)
}

// press has a checkpoint written soon.
func (l *Log) press() {
	l.pressed = true
	signal(l.kick)
}

// makeRoomForMap writes a checkpoint if so many more leaves could be too many.
func (l *Log) makeRoomForMap(leaves int) error {
	l.mu.Lock()
	crowded := l.crowded(leaves)
	l.mu.Unlock()
	if !crowded {
		return nil
	}
	return l.checkpoint()
}
