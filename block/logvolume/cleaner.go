package logvolume

import (
	"fmt"
	"time"

	"torpor/block/logvolume/clean"
	"torpor/block/logvolume/format"
)

// runCleaner keeps segments free until Close. It also takes removed layers apart:
// while one is merged, row headers name a layer that has lost its blocks.
func (l *Log) runCleaner() {
	defer l.workers.Done()
	for {
		select {
		case <-l.stop:
			return
		case <-l.cleanKick:
		case <-time.After(cleanerPause):
		}
		l.tidyAndClean()
	}
}

func (l *Log) tidyAndClean() {
	if err := l.tidy(); err != nil {
		l.event("", "a removed snapshot keeps its space: %v", err)
		return
	}
	for l.clean() {
	}
	l.releaseEmpty()
	l.trim()
}

// releaseEmpty releases segments that have become useless by themselves, though
// there may be many free ones: what lies below gets the space back.
func (l *Log) releaseEmpty() {
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	l.mu.Lock()
	empty := 0
	for _, s := range l.segments {
		if s != nil && s.state == sealed && s.live == 0 && s.meta == 0 && len(s.rows) == 0 {
			empty++
			if !s.cleaned {
				s.cleaned, s.cleanedRow = true, l.nextRow-1
			}
		}
	}
	busy := l.failed != nil || l.ending
	l.mu.Unlock()
	if empty > emptyEnough && !busy {
		l.release()
	}
}

// emptyEnough is how many useless segments may wait for the next one to be
// cleaned, rather than have a checkpoint made for them.
const emptyEnough = 8

const cleanerPause = time.Second

// wakeCleaner has the cleaner look whether there is something to do.
func (l *Log) wakeCleaner() { signal(l.cleanKick) }

// clean moves what is useful out of one segment, and releases what it can, if
// there are few free ones. It says whether it has to go on.
func (l *Log) clean() bool {
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	l.mu.Lock()
	idle := l.failed != nil || l.ending || l.freeSegments() >= l.policy.High+l.mapReserve()
	l.mu.Unlock()
	if idle {
		return false
	}
	if l.makeRoomForMap(l.geometry.SegmentBlocks()) != nil {
		return false
	}
	s, sealedLater := l.chooseVictim()
	if s == nil {
		if sealedLater {
			// Younger than the checkpoint; the next one makes it old enough.
			return l.checkpoint() == nil
		}
		return l.release() > 0
	}
	err := l.move(s)
	l.mu.Lock()
	s.readers.Add(-1)
	s.cleaned, s.cleanedRow = err == nil, l.nextRow-1
	s.stuck = err != nil
	ending := l.failed != nil || l.ending
	l.mu.Unlock()
	if err != nil && !ending {
		l.event("", "segment %d can not be cleaned: %v", s.id, err)
	}
	released := l.release()
	return !ending && (err == nil || released > 0)
}

// chooseVictim returns the segment that is best to clean, pinned. Without one,
// sealedLater says whether there are some that the next checkpoint makes fit.
func (l *Log) chooseVictim() (victim *segment, sealedLater bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	choice := l.choice[:0]
	for _, s := range l.segments {
		use := clean.Segment{}
		if s != nil && s.state == sealed && !s.cleaned && !s.stuck && len(s.rows) == 0 && s.readers.Load() == 0 {
			use = s.use
			use.Live = int32(s.live + s.meta)
			use.Blocks = int32(l.geometry.SegmentBlocks())
			if s.sealed >= l.checkpointRow {
				sealedLater = true
				use = clean.Segment{}
			}
		}
		choice = append(choice, use)
	}
	l.choice = choice
	free := l.freeSegments()
	if free > metaReserve+1 {
		// Writers that are faster than the cleaner keep the log at its reserve; that
		// is no reason to take what is emptiest now.
		free = l.policy.High
	}
	i, ok := l.policy.Choose(choice, l.now(), l.now(), free)
	if !ok || int(choice[i].Live) > l.geometry.SegmentBlocks()*maxUsefulPercent/100 {
		return nil, sealedLater
	}
	l.segments[i].readers.Add(1)
	return l.segments[i], false
}

// maxUsefulPercent: a fuller segment is not worth it, as headers and padding of
// what is moved take as much as is gained.
const maxUsefulPercent = 98

// liveBlock is a block that the map points to.
type liveBlock struct {
	layer format.LayerID
	at    format.Block
	entry format.Entry
}

// move appends what is useful in a segment to a colder stream.
func (l *Log) move(s *segment) error {
	err := l.moveUseful(s, false)
	if err == nil && l.liveIn(s) > 0 {
		// A disk may have returned the header of another row.
		err = l.moveUseful(s, true)
	}
	if err != nil {
		return err
	}
	if live := l.liveIn(s); live > 0 {
		return fmt.Errorf("%d useful blocks are in none of its rows", live)
	}
	return nil
}

func (l *Log) liveIn(s *segment) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.live
}

func (l *Log) moveUseful(s *segment, careful bool) error {
	blocks, err := l.usefulIn(s, careful)
	if err != nil {
		return err
	}
	batch := l.stripeBlocks() - 2
	for len(blocks) > 0 {
		n := min(batch, len(blocks))
		if err := l.moveBatch(s, blocks[:n]); err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	return nil
}

// usefulIn walks through the rows of a segment. Leaves are not moved but marked
// to be written by the next checkpoint.
func (l *Log) usefulIn(s *segment, careful bool) (blocks []liveBlock, err error) {
	l.mu.Lock()
	columns, live, meta := s.columns, s.live, s.meta
	l.mu.Unlock()
	if live == 0 && meta == 0 {
		return nil, nil
	}
	err = l.eachRow(s, columns, careful, func(f *foundRow) (err error) {
		blocks, err = l.usefulOf(f, blocks)
		return err
	})
	return blocks, err
}

// usefulOf adds the blocks of a row that the map points to.
func (l *Log) usefulOf(f *foundRow, blocks []liveBlock) ([]liveBlock, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := 0
	for _, e := range f.header.Extents {
		switch e.Kind {
		case format.KindLeaf:
			for j := range int(e.Count) {
				if err := l.rewriteLeaf(e.Layer, format.LeafIndex(e.Start)+format.LeafIndex(j), f.entry(l.geometry, i+j)); err != nil {
					return nil, err
				}
			}
		case format.KindData:
			for j := range int(e.Count) {
				at, entry := format.Block(e.Start)+format.Block(j), f.entry(l.geometry, i+j)
				owner, err := l.holderOf(e.Layer, at, entry)
				if err != nil {
					return nil, err
				}
				if owner != 0 {
					blocks = append(blocks, liveBlock{owner, at, entry})
				}
			}
		}
		i += e.Stored()
	}
	return blocks, nil
}

// holderOf returns the layer that maps a block to a place, 0 if none does.
func (l *Log) holderOf(layer format.LayerID, at format.Block, entry format.Entry) (format.LayerID, error) {
	for {
		owner, missing := l.blocks.Holder(layer, at, entry)
		if missing == nil {
			return owner, nil
		}
		if err := l.load(missing); err != nil {
			return 0, err
		}
	}
}

// rewriteLeaf has a leaf written anew if that is where it is.
func (l *Log) rewriteLeaf(layer format.LayerID, leaf format.LeafIndex, at format.Entry) error {
	for {
		owner := l.blocks.LeafHolder(layer, leaf, at)
		if owner == 0 {
			return nil
		}
		missing := l.blocks.MarkDirty(owner, leaf)
		if missing == nil {
			return nil
		}
		if err := l.load(missing); err != nil {
			return err
		}
	}
}

// moveBatch reads some blocks of a segment and appends them.
func (l *Log) moveBatch(s *segment, blocks []liveBlock) error {
	pages := make([]*page, len(blocks))
	l.pages.get(pages)
	entries, buffers := make([]format.Entry, len(blocks)), make([][]byte, len(blocks))
	for i, b := range blocks {
		entries[i], buffers[i] = b.entry, pages[i].data
	}
	if err := l.readEntries(entries, buffers); err != nil {
		l.pages.put(pages)
		return err
	}
	for _, p := range pages {
		p.sum = checksum(p.data)
	}
	for len(blocks) > 0 {
		r, n, err := l.cutMoved(s, blocks, pages)
		if err != nil {
			l.pages.put(pages)
			return err
		}
		blocks, pages = blocks[n:], pages[n:]
		l.write(r)
	}
	return nil
}

// cutMoved makes a row of moved blocks, as many as fit, but for those that were
// changed meanwhile. It returns how many it has seen to.
func (l *Log) cutMoved(s *segment, blocks []liveBlock, pages []*page) (*row, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, err := l.draftMoved(s, blocks)
	if err != nil {
		return nil, 0, err
	}
	n := 0
	var taken []liveBlock
	for ; n < len(blocks) && d.fits(len(d.row.pages)+1, 1); n++ {
		b := blocks[n]
		if own, _ := l.blocks.Own(b.layer, b.at); own != b.entry {
			l.pages.put(pages[n : n+1])
			continue
		}
		d.add(format.Extent{Kind: format.KindData, Layer: b.layer, Start: uint64(b.at), Count: 1}, pages[n:n+1])
		taken = append(taken, b)
	}
	r := d.cut(l.cutSequence)
	r.segment.wrote(len(taken), s.use.Written)
	for i, b := range taken {
		l.point(b.layer, b.at, r, i)
	}
	return r, n, nil
}

// draftMoved begins a cold row, with the leaves in memory that it will change.
func (l *Log) draftMoved(s *segment, blocks []liveBlock) (*draft, error) {
	for {
		if l.failed != nil {
			return nil, l.failed
		}
		if l.ending {
			return nil, fmt.Errorf("log is closed")
		}
		released := false
		for _, b := range blocks {
			again, err := l.loadRange(b.layer, b.at, 1)
			if err != nil {
				return nil, err
			}
			released = released || again
		}
		if released {
			continue
		}
		if d := l.draft(l.demoted(s.stream)); d != nil {
			return d, nil
		}
		// What was cleaned before can be released only by what comes here.
		l.mu.Unlock()
		n := l.release()
		l.mu.Lock()
		if n == 0 {
			return nil, fmt.Errorf("no segment is left to move blocks to")
		}
	}
}

// demoted is the stream for what is moved out of a segment of a stream.
func (l *Log) demoted(from format.Stream) format.Stream {
	if from == format.Meta {
		return format.Meta
	}
	return format.Stream(l.policy.Demote(clean.Stream(from)))
}

// release makes segments free that are useless, once nothing can need them any
// more: what made them so is durable, and the newest checkpoint is younger than
// their rows and than what was dropped without a row. It does what is missing
// for that, and returns how many it released.
func (l *Log) release() int {
	l.mu.Lock()
	waiting, needRows, needCheckpoint := l.cleanedSegments()
	l.mu.Unlock()
	if waiting == 0 {
		return 0
	}
	if needCheckpoint {
		if l.checkpoint() != nil {
			return 0
		}
	} else if needRows && l.syncRows() != nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.dropReleasable()
	if n > 0 {
		l.policy, l.spaceBlocks = clean.For(l.totalSegments()), max(l.spaceBlocks, l.capacity())
		l.progress.Broadcast()
	}
	return n
}

// dropReleasable makes segments free that nothing needs any more. Log.mu is held.
func (l *Log) dropReleasable() (n int) {
	for _, s := range l.segments {
		if s != nil && s.cleaned && l.releasable(s) {
			l.drop(s)
			n++
		}
	}
	return n
}

// cleanedSegments counts those that wait to be released, and says what for.
func (l *Log) cleanedSegments() (waiting int, needRows, needCheckpoint bool) {
	for _, s := range l.segments {
		if s == nil || !s.cleaned {
			continue
		}
		waiting++
		needRows = needRows || s.cleanedRow > l.durableRow
		needCheckpoint = needCheckpoint || s.meta > 0 || s.sealed >= l.checkpointRow || l.drops != l.dropsSaved
	}
	return waiting, needRows, needCheckpoint
}

func (l *Log) releasable(s *segment) bool {
	return s.live == 0 && s.meta == 0 && s.readers.Load() == 0 && len(s.rows) == 0 &&
		s.cleanedRow <= l.durableRow && s.sealed < l.checkpointRow && l.drops == l.dropsSaved
}
