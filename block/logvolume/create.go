package logvolume

import (
	"crypto/rand"
	"errors"
	"fmt"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// Spec is what is decided when a log is created. Zero fields but the shards
// choose what fits the disks.
type Spec struct {
	DataShards   int   // k; 1 if both are 0
	ParityShards int   // m
	ShardBytes   int64 // what a segment takes of each of its disks; default 1/1024 of the smallest, 256 KiB to 16 MiB
	StripeBytes  int64 // the most data that is written at once, with its header; default 1 MiB
	JournalBytes int64 // of each disk, rounded up; default 1/64 of the smallest, at most 64 MiB
	// Force creates a log on disks that hold one already.
	Force bool
}

// Errors of Create and Open that callers tell apart.
var (
	// ErrInUse is for disks that hold a log already.
	ErrInUse = errors.New("disk holds a log already")
	// ErrNotALog is for disks that hold none.
	ErrNotALog = errors.New("disk holds no log")
	// ErrTooFewDisks is for a layout that the disks are not enough for.
	ErrTooFewDisks = errors.New("too few disks")
)

// Create makes disks into an empty log. Errors: ErrInUse, ErrTooFewDisks; and
// what devices return. Disks are not touched before all were looked at.
func Create(disks []Disk, spec Spec) error {
	geometry, slots, err := plan(disks, spec)
	if err != nil {
		return err
	}
	for _, d := range disks {
		if spec.Force {
			continue
		}
		if err := mustHoldNoLog(Options{}.diskTimeout(), d.Device); err != nil {
			return fmt.Errorf("create log on %s: %w", d.Name, err)
		}
	}
	super := format.Super{Generation: 1, Epoch: 1, Geometry: geometry}
	rand.Read(super.Log[:])
	for i := range disks {
		record := format.DiskRecord{Slots: slots[i]}
		rand.Read(record.ID[:])
		super.Disks = append(super.Disks, record)
	}
	for i, d := range disks {
		super.Disk = super.Disks[i].ID
		if err := initialise(d.Device, &super); err != nil {
			return fmt.Errorf("create log on %s: %w", d.Name, err)
		}
	}
	return nil
}

// initialise empties the head and the journal of a disk and writes its superblock.
func initialise(d block.Device, super *format.Super) error {
	head := block.Range{LenBytes: format.HeadBytes + super.Geometry.JournalBytes}
	if err := d.Zero(head, 0); err != nil {
		return err
	}
	b := block.AlignedBuffer(format.BlockBytes)
	copy(b, super.Encode())
	if err := d.WriteAt(b, block.Offset(format.SuperOffsets[super.Generation&1]), block.FUA); err != nil {
		return err
	}
	return d.Flush()
}

// plan chooses a geometry, and says how many slots each disk has.
func plan(disks []Disk, spec Spec) (format.Geometry, []uint32, error) {
	g := format.Geometry{DataShards: spec.DataShards, ParityShards: spec.ParityShards, ShardBytes: spec.ShardBytes, StripeBytes: spec.StripeBytes}
	if g.DataShards == 0 && g.ParityShards == 0 {
		g.DataShards = 1
	}
	if len(disks) < g.Shards() || len(disks) > format.MaxDisks {
		return g, nil, fmt.Errorf("create log of layout %d+%d on %d disks: %w", g.DataShards, g.ParityShards, len(disks), ErrTooFewDisks)
	}
	smallest := disks[0].Device.Info().SizeBytes
	for _, d := range disks {
		smallest = min(smallest, d.Device.Info().SizeBytes)
	}
	if g.ShardBytes == 0 {
		g.ShardBytes = powerBelow(smallest/1024, 256<<10, 16<<20)
	}
	if g.StripeBytes == 0 {
		g.StripeBytes = min(1<<20, g.ShardBytes/4*int64(g.DataShards))
	}
	journal := spec.JournalBytes
	if journal == 0 {
		journal = min(smallest/64, 64<<20)
	}
	g.JournalBytes = (format.HeadBytes+journal+g.ShardBytes-1)/g.ShardBytes*g.ShardBytes - format.HeadBytes
	if err := g.Validate(); err != nil {
		return g, nil, fmt.Errorf("create log: %w", err)
	}
	slots := make([]uint32, len(disks))
	for i, d := range disks {
		n := (d.Device.Info().SizeBytes - g.SlotOffset(0)) / g.ShardBytes
		if n < minSlots {
			return g, nil, fmt.Errorf("create log on %s: %d bytes are room for %d shards of %d bytes, %d are needed: %w",
				d.Name, d.Device.Info().SizeBytes, max(n, 0), g.ShardBytes, minSlots, block.ErrNoSpace)
		}
		slots[i] = uint32(min(n, 1<<31))
	}
	return g, slots, nil
}

// minSlots is how many shards a disk must have room for: those that are reserved
// or open, and some to clean.
const minSlots = 2*format.StreamCount + 12

// powerBelow returns the greatest power of two up to n, within bounds.
func powerBelow(n, low, high int64) int64 {
	p := low
	for p*2 <= min(n, high) {
		p *= 2
	}
	return p
}
