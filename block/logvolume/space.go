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
// counted as new ones first, and looked up if that is too much. Log.mu is held,
// and released while the queue is cut and leaves are read.
func (l *Log) admit(c change) error {
	if len(c.pages) == 0 || l.taken()+len(c.pages) <= l.spaceBlocks {
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
	fresh := 0
	for at := c.start; at < c.end(); at++ {
		if own, _ := l.blocks.Own(c.layer, at); !own.Mapped() {
			fresh++
		}
	}
	if l.taken()+fresh > l.spaceBlocks {
		return block.ErrNoSpace
	}
	return nil
}

// taken is how many blocks have to have a place: useful data, what is queued, the
// map, and its leaves that the next checkpoint writes before the old ones go.
func (l *Log) taken() int {
	return l.live + l.queue.blocks + l.meta + int(l.blocks.DirtyBytes()/format.BlockBytes)
}
