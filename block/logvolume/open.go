package logvolume

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"torpor/block"
	"torpor/block/logvolume/blockmap"
	"torpor/block/logvolume/format"
)

// Open opens the log that lies on some disks, and brings it to the state of its
// last durable change. Disks may be missing, in any order, and of no use, as
// long as no more are than the layout has parity. The log owns the devices then,
// and closes them; if there is an error it does not. Errors: ErrNotALog,
// ErrTooFewDisks, block.ErrCorrupt.
func Open(disks []Disk, o Options) (*Log, error) {
	l, err := assemble(disks, o)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := l.recover(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", l.id, err)
	}
	l.start()
	return l, nil
}

// assemble finds out which disks are which.
func assemble(disks []Disk, o Options) (*Log, error) {
	supers := make([]*format.Super, len(disks))
	var newest *format.Super
	var unread error
	for i, d := range disks {
		s, err := readSuperWithin(o.diskTimeout(), d.Device)
		if err != nil {
			unread = errors.Join(unread, fmt.Errorf("disk %s: %w: %w", d.Name, ErrNotALog, err))
			continue
		}
		if newest != nil && s.Log != newest.Log {
			return nil, fmt.Errorf("disk %s is of log %s, others of %s", d.Name, s.Log, newest.Log)
		}
		supers[i] = s
		if newest == nil || s.Generation > newest.Generation {
			newest = s
		}
	}
	if newest == nil {
		return nil, errors.Join(unread, ErrTooFewDisks)
	}
	l := newLog(newest, o)
	for i, d := range disks {
		if s := supers[i]; s != nil {
			l.attach(d, s.Disk)
		}
	}
	present := 0
	for _, d := range l.disks {
		if d.usable() {
			present++
		}
	}
	if present < l.geometry.DataShards {
		return nil, fmt.Errorf("%d of %d disks are there, %d are needed: %w", present, len(l.disks), l.geometry.DataShards, errors.Join(ErrTooFewDisks, unread))
	}
	var err error
	l.code, err = newCode(l.geometry)
	return l, err
}

func newLog(s *format.Super, o Options) *Log {
	l := &Log{id: s.Log, geometry: s.Geometry, generation: s.Generation, epoch: s.Epoch, rootEpoch: s.Epoch, root: s.Root, volumes: map[string]*Volume{},
		layers: map[format.LayerID]*layer{}, nextLayer: 1, stop: make(chan struct{}), kick: make(chan struct{}, 1), syncKick: make(chan struct{}, 1), cleanKick: make(chan struct{}, 1), rows: make(chan *row)}
	l.progress, l.work = sync.NewCond(&l.mu), sync.NewCond(&l.mu)
	l.watch = watch{log: l, requests: map[*request]struct{}{}}
	l.queue.index = map[blockKey]*page{}
	l.blocks = blockmap.New(func(at format.Entry) { l.released = append(l.released, at) })
	var diskBytes int64
	for i, record := range s.Disks {
		d := &disk{id: record.ID, index: i, state: record.State, name: record.ID.String(), slots: make([]*segment, record.Slots), written: make([]bool, record.Slots), free: int(record.Slots)}
		d.journal.bytes = s.Geometry.JournalBytes
		l.disks = append(l.disks, d)
		diskBytes += int64(record.Slots) * s.Geometry.ShardBytes
	}
	l.options = o.withDefaults(diskBytes)
	// With less than a stripe no row would ever be full.
	l.options.DirtyBytes = max(l.options.DirtyBytes, 2*int64(s.Geometry.StripeBytes))
	for _, d := range l.disks {
		d.timeout = l.options.DiskTimeout
	}
	l.blocks.SetLimit(l.options.MapBytes)
	return l
}

func (o Options) withDefaults(diskBytes int64) Options {
	if o.DirtyBytes == 0 {
		o.DirtyBytes = 64 << 20
	}
	if o.MapBytes == 0 {
		o.MapBytes = 64<<20 + diskBytes/512
	}
	o.MapBytes = max(o.MapBytes, 16<<20)
	o.DiskTimeout = o.diskTimeout()
	if o.UnsyncedBytes == 0 {
		o.UnsyncedBytes = 256 << 20
	}
	if o.JournalBatchBytes == 0 {
		o.JournalBatchBytes = 64 << 10
	}
	return o
}

func (o Options) diskTimeout() time.Duration {
	if o.DiskTimeout == 0 {
		return 10 * time.Second
	}
	return o.DiskTimeout
}

// attach gives a disk its device.
func (l *Log) attach(d Disk, id format.DiskID) {
	for _, other := range l.disks {
		if other.id == id && other.device == nil {
			other.name, other.device = d.Name, d.Device
			// What a process wrote that was killed may not be durable yet.
			other.dirty.Store(true)
		}
	}
}

const rowWriters = 2

// start starts what runs until Close.
func (l *Log) start() {
	l.workers.Add(4 + rowWriters)
	go l.runCutter()
	for range rowWriters {
		go l.runWriter()
	}
	go l.runCheckpointer()
	go l.runSyncer()
	go l.runCleaner()
}

// Close makes everything durable, writes a checkpoint, and closes the disks.
// Volumes are closed by it.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return block.ErrClosed
	}
	l.closing = true
	for _, v := range l.volumes {
		for v.users > 0 {
			l.progress.Wait()
		}
	}
	through := l.lastSequence
	l.mu.Unlock()
	// The cleaner goes on: what is to be flushed may need a segment.
	err := l.flushThrough(through)
	if err == nil {
		err = l.checkpoint()
	}
	l.mu.Lock()
	l.ending = true
	close(l.stop)
	l.progress.Broadcast()
	l.work.Broadcast()
	l.mu.Unlock()
	l.workers.Wait()
	l.late.Wait()
	for _, d := range l.disks {
		if d.device == nil {
			continue
		}
		// Nothing depends on a disk that is out, so its errors are known.
		if closed := l.closeDevice(d.name, d.device); d.usable() {
			err = errors.Join(err, closed)
		}
	}
	l.closeFormer()
	return err
}

// closeFormer lets go of disks that were replaced, so that they can be taken out.
// Nothing depends on them.
func (l *Log) closeFormer() {
	l.mu.Lock()
	former := l.former
	l.former = nil
	l.mu.Unlock()
	for _, device := range former {
		_ = l.closeDevice("that was replaced", device)
	}
}
