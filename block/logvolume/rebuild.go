package logvolume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"torpor/block"
	"torpor/block/logvolume/clean"
	"torpor/block/logvolume/format"
)

// Errors of ReplaceDisk that callers tell apart.
var (
	// ErrNoDisk is for the name of a disk that a log has not.
	ErrNoDisk = errors.New("log has no such disk")
	// ErrNeeded is for a disk with whose content more would be lost than others
	// make up for.
	ErrNeeded = errors.New("the disk is needed")
)

// AddDisk makes a disk a part of the log: new segments lie on it, too. Its content
// is lost. Errors: ErrInUse.
func (l *Log) AddDisk(d Disk) error {
	if err := l.addDisk(d); err != nil {
		return fmt.Errorf("add disk %s: %w", d.Name, err)
	}
	return l.checkpoint()
}

func (l *Log) addDisk(d Disk) error {
	slots, err := l.slotsOf(d)
	if err != nil {
		return err
	}
	l.layersMu.Lock()
	defer l.layersMu.Unlock()
	added := &disk{timeout: l.options.DiskTimeout, name: d.Name, device: d.Device, slots: make([]*segment, slots), written: make([]bool, slots), free: slots}
	added.journal.bytes = l.geometry.JournalBytes
	rand.Read(added.id[:])
	if err := l.clearHead(d); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.disks) == format.MaxDisks {
		return fmt.Errorf("a log has at most %d disks", format.MaxDisks)
	}
	added.index = len(l.disks)
	l.disks = append(l.disks[:len(l.disks):len(l.disks)], added)
	l.policy = clean.For(l.totalSegments())
	l.spaceBlocks = l.capacity()
	l.progress.Broadcast()
	return nil
}

// slotsOf checks that a disk can be taken, and says how many shards it has room for.
func (l *Log) slotsOf(d Disk) (int, error) {
	if err := mustHoldNoLog(l.options.DiskTimeout, d.Device); err != nil {
		return 0, err
	}
	slots := (d.Device.Info().SizeBytes - l.geometry.SlotOffset(0)) / l.geometry.ShardBytes
	if slots < 1 {
		return 0, fmt.Errorf("%d bytes are room for no shard: %w", d.Device.Info().SizeBytes, block.ErrNoSpace)
	}
	return int(min(slots, 1<<31)), nil
}

// clearHead makes sure that nothing of another log is found on a disk.
func (l *Log) clearHead(d Disk) error {
	return await(l.options.DiskTimeout, func() error {
		return d.Device.Zero(block.Range{LenBytes: format.HeadBytes + l.geometry.JournalBytes}, 0)
	})
}

// ReplaceDisk puts another disk in the place of one, which may be there, out, or
// missing, and fills it. If it is the same disk, back again, only what it missed
// is filled in. The log stays in use. If it is interrupted, Rebuild goes on.
// The former disk is closed in the end. Errors: ErrNoDisk, ErrInUse, ErrNeeded.
func (l *Log) ReplaceDisk(ctx context.Context, name string, d Disk, progress Progress) error {
	if err := l.swapDisk(name, d); err != nil {
		return fmt.Errorf("replace disk %s by %s: %w", name, d.Name, err)
	}
	defer l.closeFormer()
	if err := l.checkpoint(); err != nil {
		return err
	}
	return l.Rebuild(ctx, progress)
}

func (l *Log) swapDisk(name string, d Disk) error {
	old := l.diskNamed(name)
	if old == nil {
		return ErrNoDisk
	}
	again, err := l.sameDisk(old, d)
	if err != nil {
		return err
	}
	if !again {
		if err := l.dispensable(old); err != nil {
			return err
		}
		slots, err := l.slotsOf(d)
		if err != nil {
			return err
		}
		if slots < len(old.slots) {
			return fmt.Errorf("it has room for %d shards, the old one for %d: %w", slots, len(old.slots), block.ErrNoSpace)
		}
		if err := l.clearHead(d); err != nil {
			return err
		}
	}
	l.putOut(old, errors.New("it is replaced"))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.install(old, d, again)
	return nil
}

// ReleaseDisk closes a disk that is out, so that it can be opened anew to take its
// own place. Errors: ErrNoDisk, ErrInUse.
func (l *Log) ReleaseDisk(name string) error {
	device, err := l.releaseDisk(name)
	if err != nil {
		return fmt.Errorf("release disk %s: %w", name, err)
	}
	if device != nil {
		_ = device.Close() // nothing depends on it
	}
	return nil
}

func (l *Log) releaseDisk(name string) (block.Device, error) {
	old := l.diskNamed(name)
	if old == nil {
		return nil, ErrNoDisk
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old.usable() || l.disks[old.index] != old {
		return nil, ErrInUse
	}
	gone := &disk{timeout: old.timeout, name: old.name, id: old.id, index: old.index, state: format.DiskOut, reason: old.reason, slots: old.slots, written: old.written, free: old.free}
	l.disks = append([]*disk(nil), l.disks...)
	l.disks[old.index] = gone
	return old.device, nil
}

// dispensable checks that nothing is lost with a disk, and that changes go on
// without it.
func (l *Log) dispensable(old *disk) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	others := 0
	for _, d := range l.disks {
		if d != old && d.usable() {
			others++
		}
	}
	if others < l.geometry.DataShards && old.usable() {
		return fmt.Errorf("%d others are up, %d are needed: %w", others, l.geometry.DataShards, ErrNeeded)
	}
	for _, s := range l.segments {
		if s != nil && !s.cleaned && s.live+s.meta > 0 && l.shardsWithout(s, old) < l.geometry.DataShards {
			return fmt.Errorf("segment %d has %d other shards, %d are needed: %w", s.id, l.shardsWithout(s, old), l.geometry.DataShards, ErrNeeded)
		}
	}
	return nil
}

// shardsWithout counts the shards of a segment that can be read without a disk.
func (l *Log) shardsWithout(s *segment, without *disk) int {
	n := 0
	for _, shard := range s.shards {
		if shard.Disk != format.NoDisk && int(shard.Disk) != without.index && !shard.Stale && l.disks[shard.Disk].usable() {
			n++
		}
	}
	return n
}

// diskNamed finds a disk by its name or ID.
func (l *Log) diskNamed(name string) *disk {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.disks {
		if d.name == name || d.id.String() == name {
			return d
		}
	}
	return nil
}

// sameDisk says whether a device has the superblock of a disk that is out.
func (l *Log) sameDisk(old *disk, d Disk) (bool, error) {
	s, _ := readSuperWithin(l.options.DiskTimeout, d.Device)
	if s == nil || s.Log != l.id || s.Disk != old.id {
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old.usable() {
		return false, fmt.Errorf("it is in use: %w", ErrInUse)
	}
	if old.pending.Load() > 0 {
		// They could destroy what is written to it from now on.
		return false, fmt.Errorf("requests to it are still under way: %w", ErrInUse)
	}
	return true, nil
}

// install puts a device in the place of a disk that is out. All of its shards
// are missing then, or if it is the same disk again, those that are stale.
func (l *Log) install(old *disk, d Disk, again bool) {
	fresh := &disk{timeout: old.timeout, name: d.Name, device: d.Device, id: old.id, index: old.index, state: format.DiskFilling, slots: old.slots, written: old.written, free: old.free}
	fresh.journal.bytes = l.geometry.JournalBytes
	if !again {
		rand.Read(fresh.id[:])
		for _, s := range l.segments {
			if s != nil {
				markStale(s.shards, old.index)
			}
		}
	}
	l.disks = append([]*disk(nil), l.disks...)
	l.disks[old.index] = fresh
	if old.device != nil && old.device != d.Device {
		l.former = append(l.former, old.device)
	}
	l.stale = true
	l.policy = clean.For(l.totalSegments())
	l.spaceBlocks = l.capacity()
	l.event(d.Name, "disk %s takes the place of %s", d.Name, old.name)
}

// Rebuild makes the shards again that segments lack, on disks that have room,
// the least redundant segments first. The log stays in use. What no disk has room
// for stays missing; what can not be made is an error, after all the rest was.
func (l *Log) Rebuild(ctx context.Context, progress Progress) error {
	if err := l.rebuildSegments(ctx, progress); err != nil {
		return err
	}
	// A copy of what only the journal has may be lost, too.
	l.mu.Lock()
	err := l.emptyQueue()
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("rebuild journal: %w", err)
	}
	l.mu.Lock()
	for _, d := range l.disks {
		if d.state == format.DiskFilling && !l.lacks(d) {
			d.state, l.stale = format.DiskUp, true
			l.event(d.name, "disk %s is filled", d.name)
		}
	}
	l.mu.Unlock()
	return l.checkpoint()
}

// rebuildSegments rebuilds each segment that can be. Those that can not be are
// left out, and an error in the end.
func (l *Log) rebuildSegments(ctx context.Context, progress Progress) error {
	var failures error
	failed := map[*segment]bool{}
	total := 0
	for done := 0; ; done++ {
		s, left := l.nextDegraded(failed)
		total = max(total, done+left)
		progress.tell(done, total)
		if s == nil {
			return failures
		}
		err := ctx.Err()
		if err == nil {
			err = l.rebuildSegment(ctx, s)
		}
		s.readers.Add(-1)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("rebuild segment %d: %w", s.id, ctx.Err())
		case errors.Is(err, errLostDisk):
			// Others may have room.
		case err != nil:
			failed[s] = true
			if len(failed) <= maxProblems {
				failures = errors.Join(failures, fmt.Errorf("rebuild segment %d: %w", s.id, err))
			}
		}
	}
}

// errLostDisk ends the rebuilding of a segment on a disk that was put out.
var errLostDisk = errors.New("disk was lost")

// lacks says whether a disk has a shard that is stale.
func (l *Log) lacks(d *disk) bool {
	for _, s := range l.segments {
		if s == nil || s.cleaned {
			continue
		}
		for _, shard := range s.shards {
			if int(shard.Disk) == d.index && shard.Stale {
				return true
			}
		}
	}
	return false
}

// nextDegraded returns the segment with the most shards missing that there is
// room for, pinned, and how many there are. Open ones are sealed first: what is
// being written to stays as degraded as it was begun.
func (l *Log) nextDegraded(failed map[*segment]bool) (worst *segment, left int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := 0
	for _, s := range l.segments {
		if s == nil || failed[s] || s.cleaned {
			continue
		}
		missing := len(l.placesToFill(s))
		if missing == 0 {
			continue
		}
		left++
		if missing > most {
			worst, most = s, missing
		}
	}
	if worst != nil {
		worst.readers.Add(1)
	}
	return worst, left
}

// refill is a shard that can be made again.
type refill struct {
	shard int
	disk  *disk
	slot  uint32
	fresh bool // the slot is not the shard's own
}

// placesToFill says which shards of a segment are missing and where they could
// be: where they were, or on a disk that has none of the segment.
func (l *Log) placesToFill(s *segment) (fills []refill) {
	taken := map[int]bool{}
	for _, shard := range s.shards {
		if shard.Disk != format.NoDisk && l.disks[shard.Disk].usable() {
			taken[int(shard.Disk)] = true
		}
	}
	for i, shard := range s.shards {
		if shard.Disk != format.NoDisk && l.disks[shard.Disk].usable() {
			if shard.Stale {
				fills = append(fills, refill{shard: i, disk: l.disks[shard.Disk], slot: shard.Slot})
			}
			continue
		}
		for _, d := range l.disks {
			if d.usable() && d.free > 0 && !taken[d.index] {
				taken[d.index] = true
				fills = append(fills, refill{shard: i, disk: d, fresh: true})
				break
			}
		}
	}
	return fills
}

// rebuildSegment makes the missing shards of a pinned segment.
func (l *Log) rebuildSegment(ctx context.Context, s *segment) error {
	if err := l.sealNow(ctx, s); err != nil {
		return err
	}
	l.mu.Lock()
	fills := l.placesToFill(s)
	for i := range fills {
		if fills[i].fresh {
			fills[i].slot = fills[i].disk.takeSlot(s)
		}
	}
	columns := s.columns
	l.mu.Unlock()
	err := l.eachRow(s, columns, true, func(f *foundRow) error {
		w, err := l.readWhole(f)
		if err != nil {
			return err
		}
		defer w.release()
		for _, to := range fills {
			off := l.shardOffset(format.ShardRecord{Slot: to.slot}, int(f.header.Column))
			if !w.writeShard(to.disk, to.shard, off) {
				return errLostDisk
			}
		}
		return ctx.Err()
	})
	var disks []*disk
	for _, to := range fills {
		disks = append(disks, to.disk)
	}
	if err == nil && l.syncDisks(disks) {
		err = errLostDisk
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, to := range fills {
		if err == nil && l.disks[to.disk.index] != to.disk || !to.disk.usable() {
			err = errLostDisk
		}
	}
	l.settleFills(s, fills, err == nil)
	return err
}

// settleFills makes the new places those of the shards, or gives them up.
func (l *Log) settleFills(s *segment, fills []refill, filled bool) {
	for _, to := range fills {
		was := s.shards[to.shard]
		switch {
		case filled:
			if to.fresh && was.Disk != format.NoDisk && l.disks[was.Disk].slots[was.Slot] == s {
				l.disks[was.Disk].freeSlot(was.Slot)
			}
			s.shards[to.shard] = format.ShardRecord{Disk: uint8(to.disk.index), Slot: to.slot}
		case to.fresh:
			l.disks[to.disk.index].freeSlot(to.slot)
		}
	}
}

// sealNow has no more rows go to a segment, and returns when those that do are
// on the disks.
func (l *Log) sealNow(ctx context.Context, s *segment) error {
	defer context.AfterFunc(ctx, l.wakeAll)()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.full = true
	for s.state != sealed || len(s.rows) > 0 {
		if l.failed != nil || l.ending {
			return block.ErrClosed
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		st := &l.streams[s.stream]
		if s.state == reserved && st.next == s && st.open != nil {
			st.open.full = true
		}
		switch {
		case s.state == sealed:
			l.progress.Wait()
		case st.open == s || s.state == reserved && st.next == s:
			// An empty row moves the stream on.
			d := l.draft(s.stream)
			if d == nil {
				l.wakeCleaner()
				l.progress.Wait()
				continue
			}
			r := d.cut(l.cutSequence)
			l.mu.Unlock()
			l.write(r)
			l.mu.Lock()
		default:
			return nil
		}
	}
	return nil
}

// wakeAll has everybody who waits look again.
func (l *Log) wakeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress.Broadcast()
}
