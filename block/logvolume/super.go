package logvolume

import (
	"errors"
	"fmt"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// tellSupers writes superblocks if they do not say which disks are out.
func (l *Log) tellSupers() error {
	l.mu.Lock()
	stale := l.stale
	l.mu.Unlock()
	if !stale {
		return nil
	}
	return l.writeSupers(nil)
}

// writeSupers writes the superblocks of all disks that are in use, with a new
// root unless it is nil, until all of these took it. Disks that fail are put
// out, and then it begins again, to say so.
func (l *Log) writeSupers(root *format.Root) error {
	l.superMu.Lock()
	defer l.superMu.Unlock()
	for {
		l.mu.Lock()
		if root != nil {
			l.root, l.rootEpoch = *root, l.epoch
		}
		l.stale = false
		l.generation++
		off := format.SuperOffsets[l.generation&1]
		supers := map[*disk][]byte{}
		for _, d := range l.disks {
			if d.usable() {
				supers[d] = l.superOf(d).Encode()
			}
		}
		l.mu.Unlock()
		if len(supers) < l.geometry.DataShards {
			return fmt.Errorf("write superblocks: %d of %d disks are left: %w", len(supers), len(l.disks), block.ErrCorrupt)
		}
		if l.writeSuper(supers, off) {
			return nil
		}
	}
}

// writeSuper writes one generation, and says whether all disks took it.
func (l *Log) writeSuper(supers map[*disk][]byte, off int64) bool {
	var writes []diskWrite
	for d, b := range supers {
		aligned := l.buffers.get(len(b))
		copy(aligned, b)
		writes = append(writes, diskWrite{d, [][]byte{aligned}, off})
	}
	done, late := l.writeAll(writes, block.FUA)
	for _, w := range writes {
		if !late {
			l.buffers.put(w.blocks[0])
		}
	}
	return done == len(writes)
}

// superOf is the superblock of a disk. Log.mu is held.
func (l *Log) superOf(d *disk) *format.Super {
	s := &format.Super{Log: l.id, Disk: d.id, Generation: l.generation, Epoch: l.rootEpoch, Geometry: l.geometry, Root: l.root}
	for _, d := range l.disks {
		s.Disks = append(s.Disks, format.DiskRecord{ID: d.id, State: d.state, Slots: uint32(len(d.slots))})
	}
	return s
}

// readSuperWithin is readSuper that gives up after a time.
func readSuperWithin(patience time.Duration, d block.Device) (s *format.Super, err error) {
	type answer struct {
		super *format.Super
		err   error
	}
	answers := make(chan answer, 1)
	err = await(patience, func() error {
		s, err := readSuper(d)
		answers <- answer{s, err}
		return nil
	})
	if err != nil {
		return nil, err
	}
	a := <-answers
	return a.super, a.err
}

// readSuper returns the newer one of a disk's two superblocks. Errors:
// format.ErrFormat if both can be read and neither is one; else what the disk says.
func readSuper(d block.Device) (newest *format.Super, err error) {
	b := block.AlignedBuffer(format.BlockBytes)
	var unread, wrong error
	for _, off := range format.SuperOffsets {
		if d.Info().SizeBytes < off+format.BlockBytes {
			return nil, fmt.Errorf("%d bytes are too few: %w", d.Info().SizeBytes, format.ErrFormat)
		}
		if err := d.ReadAt(b, block.Offset(off)); err != nil {
			unread = err
			continue
		}
		s, err := format.DecodeSuper(b)
		if err != nil {
			wrong = err
		} else if newest == nil || s.Generation > newest.Generation {
			newest = s
		}
	}
	switch {
	case newest != nil:
		return newest, nil
	case unread != nil:
		return nil, unread
	}
	return nil, wrong
}

// mustHoldNoLog returns an error if a disk holds a log, or can not be read: then
// nobody knows.
func mustHoldNoLog(patience time.Duration, d block.Device) error {
	s, err := readSuperWithin(patience, d)
	switch {
	case s != nil:
		return fmt.Errorf("%w: %s", ErrInUse, s.Log)
	case errors.Is(err, format.ErrFormat):
		return nil
	}
	return err
}
