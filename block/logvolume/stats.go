package logvolume

import (
	"torpor/block/logvolume/format"
)

// Stats says how a log is. Bytes are without parity unless the name says otherwise.
type Stats struct {
	Log        string
	DataShards int
	Parity     int
	ShardBytes int64
	Disks      []DiskStats
	State      State
	Failure    string // why it is failed

	CapacityBytes int64 // for useful data
	UsedBytes     int64 // useful data, of all volumes and snapshots
	Segments      int
	FreeSegments  int
	// DegradedSegments lack a shard, which rebuilding would make again.
	DegradedSegments int

	MapBytes   int64 // memory
	DirtyBytes int64 // acknowledged, in memory only or in the journal

	// Written since the log was created.
	UserBytes, HotBytes, ColdBytes, MetaBytes, JournalBytes, ParityBytes int64

	Recovery Recovery // what Open had to do
}

// State says whether a log is as redundant as its layout.
type State string

// The states of a log.
const (
	StateOK       State = "ok"
	StateDegraded State = "degraded" // disks or shards are missing
	StateFailed   State = "failed"   // it takes no changes
)

// DiskStats says how a disk is.
type DiskStats struct {
	ID, Name     string
	State        string // up, out or filling
	Reason       string // why it is out
	Missing      bool
	Slots        int
	UsedSlots    int
	ReadBytes    int64
	WrittenBytes int64
	ReadErrors   int64
	WriteErrors  int64
	WrongBlocks  int64 // blocks that did not match their checksums
}

// WriteAmplification is how many bytes were written for each that users wrote;
// without parity, which is a constant factor, and without journal and header.
func (s Stats) WriteAmplification() float64 {
	if s.UserBytes == 0 {
		return 0
	}
	return float64(s.HotBytes+s.ColdBytes+s.MetaBytes) / float64(s.UserBytes)
}

// Stats returns how the log is now.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	inBytes := func(blocks uint64) int64 { return int64(blocks) * format.BlockBytes }
	c := l.counters
	s := Stats{
		Log: l.id.String(), DataShards: l.geometry.DataShards, Parity: l.geometry.ParityShards, ShardBytes: l.geometry.ShardBytes,
		State: StateOK, CapacityBytes: inBytes(uint64(l.spaceBlocks)), UsedBytes: inBytes(uint64(l.live)),
		Segments: l.totalSegments(), FreeSegments: l.freeSegments(),
		MapBytes: l.blocks.MemoryBytes(), DirtyBytes: inBytes(uint64(l.dirtyPages)),
		UserBytes: inBytes(c.UserWritten), HotBytes: inBytes(c.HotWritten), ColdBytes: inBytes(c.ColdWritten), MetaBytes: inBytes(c.MetaWritten),
		JournalBytes: inBytes(c.JournalWritten), ParityBytes: inBytes(c.ParityWritten), Recovery: l.recovered,
	}
	for _, segment := range l.segments {
		if segment != nil && !segment.cleaned && l.degraded(segment) {
			s.DegradedSegments++
		}
	}
	for _, d := range l.disks {
		s.Disks = append(s.Disks, d.stats())
		if d.state != format.DiskUp {
			s.State = StateDegraded
		}
	}
	if s.DegradedSegments > 0 {
		s.State = StateDegraded
	}
	if l.failed != nil {
		s.State, s.Failure = StateFailed, l.failed.Error()
	}
	return s
}

func (d *disk) stats() DiskStats {
	s := DiskStats{ID: d.id.String(), Name: d.name, State: d.state.String(), Missing: d.device == nil, Slots: len(d.slots), UsedSlots: len(d.slots) - d.free,
		ReadBytes: d.readBytes.Load(), WrittenBytes: d.writtenBytes.Load(), ReadErrors: d.readErrors.Load(), WriteErrors: d.writeErrors.Load(),
		WrongBlocks: d.corrupt.Load()}
	if d.reason != nil {
		s.Reason = d.reason.Error()
	}
	return s
}

// degraded says whether a shard of a segment can not be read.
func (l *Log) degraded(s *segment) bool {
	for _, shard := range s.shards {
		if shard.Disk == format.NoDisk || shard.Stale || !l.disks[shard.Disk].usable() {
			return true
		}
	}
	return false
}
