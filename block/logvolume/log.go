package logvolume

import (
	"fmt"
	"sync"
	"time"

	"torpor/block"
	"torpor/block/logvolume/blockmap"
	"torpor/block/logvolume/clean"
	"torpor/block/logvolume/format"
)

// Options of an open log. The zero value works.
type Options struct {
	// DirtyBytes bounds what is acknowledged and in memory only; default 64 MiB, at
	// least two stripes.
	DirtyBytes int64
	// MapBytes bounds the map's memory; beyond it pages of the map are read when
	// they are needed. Default and least: 64 MiB more than 2 GiB a TiB of the disks, and 16 MiB.
	MapBytes int64
	// JournalBatchBytes: a flush of at most so much goes to the journal, of more
	// to rows. Default 64 KiB.
	JournalBatchBytes int64
	// CheckpointBytes: after so much was written to the log the map is written,
	// too. Default: 1/16 of what is mapped, 64 MiB to 8 GiB.
	CheckpointBytes int64
	// UnsyncedBytes: after so much was written in rows without a flush the disks are
	// synced, so that a recovery need not read all of it. Default 256 MiB.
	UnsyncedBytes int64
	// DiskTimeout: a disk that takes longer for a request is not used any more,
	// unless it is for a read and the disk can not be spared. Default 10 s.
	DiskTimeout time.Duration
	// Events is called for what happens by itself. It must return soon and not
	// call the log. It may be nil.
	Events func(Event)
}

// Log is an open log. Create it with Create, open it with Open.
type Log struct {
	id        format.LogID
	geometry  format.Geometry
	options   Options
	code      *code
	pages     pagePool
	buffers   bufferPool
	rows      chan *row // from the cutter to the writers
	workers   sync.WaitGroup
	late      sync.WaitGroup // the watch, and what it began
	watch     watch
	stop      chan struct{} // closed by Close
	kick      chan struct{} // to the checkpointer
	syncKick  chan struct{} // to the syncer
	cleanKick chan struct{} // to the cleaner

	layersMu     sync.Mutex // one change of layers at a time
	cleanMu      sync.Mutex // held while segments are cleaned
	checkpointMu sync.Mutex // one checkpoint at a time
	superMu      sync.Mutex // one write of superblocks at a time

	mu       sync.Mutex
	progress *sync.Cond // rows, flushes, space, state: whoever waits looks again
	work     *sync.Cond // the cutter waits here

	disks      []*disk        // replaced as a whole
	former     []block.Device // of disks that were replaced, to be closed
	epoch      format.Epoch   // of the rows that are written
	rootEpoch  format.Epoch   // of those since the root
	generation format.Generation
	root       format.Root
	recovered  Recovery
	blocks     *blockmap.Map
	queue      queue
	segments   []*segment
	// early are segments of which only recovery knows so far that they hold leaves
	// or the manifest; the rows that begin them come later.
	early map[format.SegmentID]bool
	// newIDsFrom: while a checkpoint is written segments get higher numbers than
	// those it says something of. 0: none is.
	newIDsFrom int
	streams    [format.StreamCount]stream
	volumes    map[string]*Volume
	layers     map[format.LayerID]*layer
	nextLayer  format.LayerID

	closing bool  // Close was called
	ending  bool  // ... and everything is written
	failed  error // the log takes no more changes
	stale   bool  // superblocks do not say yet which disks are out
	outs    int   // how often a disk was put out

	lastSequence     format.Sequence // the newest change
	cutSequence      format.Sequence // changes up to this one are in rows that were cut
	partSequence     format.Sequence // the newest change of which a part is in such a row
	finishedSequence format.Sequence // ... in rows that were written
	settledSequence  format.Sequence // ... in durable rows
	durable          format.Sequence // ... durable, in rows or in the journal
	cutThrough       format.Sequence // the cutter is to cut up to here

	nextRow     format.RowNumber
	finishedRow format.RowNumber // rows up to this one were written
	durableRow  format.RowNumber // ... and are durable
	// unsyncedBlocks were written in rows since the last sync of all disks began.
	unsyncedBlocks int
	unfinished     []*row // cut and not yet written, in order

	flushing    bool
	journalTurn int // the disk that the next record begins with
	inFlight    int // rows
	dirtyPages  int // pages of the queue and of rows in flight
	live        int // blocks of data in all segments
	meta        int // blocks of the map in all segments
	policy      clean.Policy
	choice      []clean.Segment // the cleaner's
	gate        int             // changes wait while it is not 0

	frozen            *blockmap.Frozen // of the checkpoint under way
	pressed           bool             // somebody waits for a checkpoint
	checkpointRow     format.RowNumber // of the newest checkpoint
	sinceBlocks       int              // written since
	manifestBlocks    []format.Entry   // of the newest checkpoint, with those of its index
	released          []format.Entry   // former places of leaves, which the newest checkpoint may have
	drops, dropsSaved int              // times that blocks became useless without a row; as of the newest checkpoint
	spaceBlocks       int              // capacity
	counters          counters
}

// Event is something that a log did by itself.
type Event struct {
	Disk   string // its name, if it is about one
	Reason string // a sentence without a full stop
}

func (l *Log) event(disk, format string, args ...any) {
	if l.options.Events != nil {
		l.options.Events(Event{Disk: disk, Reason: fmt.Sprintf(format, args...)})
	}
}

// failLocked ends all changes.
func (l *Log) failLocked(err error) {
	if l.failed == nil {
		l.failed = fmt.Errorf("log is failed: %w", err)
		l.event("", "the log takes no more changes: %v", err)
	}
	l.progress.Broadcast()
	l.work.Broadcast()
}

// counters are in blocks, since the log was created.
type counters struct {
	format.Counters
}

func (c *counters) count(h *format.Row, g format.Geometry) {
	stored := uint64(len(h.Sums))
	switch h.Stream {
	case format.Warm, format.Cold:
		c.ColdWritten += stored
	case format.Meta:
		c.MetaWritten += stored
	default:
		c.HotWritten += stored
	}
	c.ParityWritten += uint64(int(h.Columns)*g.Shards()) - stored
}
