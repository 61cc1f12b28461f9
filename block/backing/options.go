package backing

import (
	"torpor/block"
	"torpor/kernel/aio"
	"torpor/kernel/disk"
)

// Options say how to open a device.
type Options struct {
	ReadOnly bool
	// Direct asks for I/O past the page cache. Where the file system has none
	// it goes through the cache; the device's method Direct tells.
	Direct bool
	// Queue is where requests of a File go that nobody waits for: direct reads, and
	// writes to block devices. It stays the caller's, who closes it after all
	// devices; nil: each of these requests takes a thread.
	Queue *aio.Queue
}

// QueueRequests is how many requests a queue should take for the disks of a log.
const QueueRequests = 1024

func (o Options) mode() disk.Mode {
	var m disk.Mode
	if o.ReadOnly {
		m |= disk.ReadOnly
	}
	if o.Direct {
		m |= disk.Direct
	}
	return m
}

// preferredBytes is what a write of any disk is efficient with.
const preferredBytes = 1 << 20

// info describes a device of so many bytes, of which a last part of a block is
// left alone.
func (o Options) info(sizeBytes int64) block.Info {
	return block.Info{
		SizeBytes:      sizeBytes &^ (block.BlockBytes - 1),
		BlockBytes:     block.BlockBytes,
		PreferredBytes: preferredBytes,
		ReadOnly:       o.ReadOnly,
		Volatile:       true,
		Discards:       true,
	}
}
