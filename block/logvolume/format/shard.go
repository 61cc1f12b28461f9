package format

import (
	"encoding/binary"
	"fmt"
)

// ShardRecord says where a shard is. A shard on NoDisk is missing, one with Stale
// set lacks some rows.
type ShardRecord struct {
	Disk  uint8 // index in Super.Disks
	Slot  uint32
	Stale bool
}

// NoDisk is no disk's index.
const NoDisk = 0xff

// validateShards checks the shards of a segment: at most MaxShards, on different disks.
func validateShards(id SegmentID, shards []ShardRecord) error {
	if id == NoSegment && len(shards) == 0 {
		return nil
	}
	if id == NoSegment || len(shards) < 1 || len(shards) > MaxShards {
		return fmt.Errorf("segment %d with %d shards: %w", id, len(shards), ErrFormat)
	}
	var used uint64 // a bit for each disk
	for _, s := range shards {
		switch {
		case s.Disk == NoDisk:
			continue
		case s.Disk >= MaxDisks || used&(1<<s.Disk) != 0:
			return fmt.Errorf("segment %d on disk %d: %w", id, s.Disk, ErrFormat)
		}
		used |= 1 << s.Disk
	}
	return nil
}

// In row headers a shard is disk, flags, two zeros, and the slot.
const (
	shardBytes  = 8
	shardSlotAt = 4
	shardStale  = 1
)

func putShards(b []byte, shards []ShardRecord) {
	for i, s := range shards {
		one := b[i*shardBytes:]
		binary.LittleEndian.PutUint32(one, uint32(s.Disk)|uint32(s.flags())<<8)
		binary.LittleEndian.PutUint32(one[shardSlotAt:], s.Slot)
	}
}

func (s ShardRecord) flags() uint8 {
	if s.Stale {
		return shardStale
	}
	return 0
}

func shardsIn(b []byte, count int) ([]ShardRecord, error) {
	if count == 0 {
		return nil, nil
	}
	shards := make([]ShardRecord, count)
	for i := range shards {
		one := b[i*shardBytes:]
		word := binary.LittleEndian.Uint32(one)
		if word>>8 > shardStale {
			return nil, fmt.Errorf("shard with flags %#x: %w", word>>8, ErrFormat)
		}
		shards[i] = ShardRecord{Disk: uint8(word), Stale: word>>8 == shardStale, Slot: binary.LittleEndian.Uint32(one[shardSlotAt:])}
	}
	return shards, nil
}
