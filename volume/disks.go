package volume

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"torpor/block"
	"torpor/block/backing"
	"torpor/host"
	"torpor/kernel/aio"
	"torpor/volume/filesystem"
)

// A disk in a directory is made of chunks, each a file that has its space from
// the beginning. There are about a thousand of them.
const (
	leastChunkBytes = 16 << 20
	mostChunkBytes  = 1 << 30
	chunksWanted    = 1024
)

func chunkBytes(sizeBytes int64) int64 {
	n := int64(leastChunkBytes)
	for n < mostChunkBytes && n*chunksWanted < sizeBytes {
		n *= 2
	}
	return n
}

// makeDisk makes the directory that a disk is.
func makeDisk(spec DiskSpec) error {
	err := backing.CreateDirectory(spec.Made, backing.DirectorySpec{SizeBytes: spec.SizeBytes, ChunkBytes: chunkBytes(spec.SizeBytes)})
	if errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("make disk: %w: %w", err, host.ErrExists)
	}
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// openDisk opens a disk past the page cache: the log has a cache of its own, and
// memory that is waited for while memory is short would be a deadlock. Its requests
// go by a queue, which may be nil.
func openDisk(spec DiskSpec, readOnly bool, queue *aio.Queue) (block.Device, error) {
	options := backing.Options{ReadOnly: readOnly, Direct: true, Queue: queue}
	var device block.Device
	var err error
	if spec.Made != "" {
		device, err = opened(backing.OpenDirectory(spec.Made, options))
	} else {
		device, err = opened(backing.OpenFile(spec.Path, options))
	}
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	return device, nil
}

// opened keeps a nil pointer from becoming a device.
func opened[D block.Device](device D, err error) (block.Device, error) {
	if err != nil {
		return nil, err
	}
	return device, nil
}

// lookBytes is how much of the beginning and of the end of a disk is looked at.
const lookBytes = 1 << 20

// holdsSomething says what is on a disk that users gave, "" if it is blank as far
// as its ends show: file systems, partition tables and volumes have marks there.
func holdsSomething(d logDisk) (string, error) {
	size := d.device.Info().SizeBytes
	n := min(lookBytes, size)
	buffer := block.AlignedBuffer(int(n))
	for _, at := range []int64{0, size - n} {
		if err := d.device.ReadAt(buffer, block.Offset(at)); err != nil {
			return "", fmt.Errorf("look at disk %s: %w", d.name, err)
		}
		if slices.ContainsFunc(buffer, func(b byte) bool { return b != 0 }) {
			fs, err := filesystem.Detect(d.name)
			if err != nil || fs == "" {
				return "data", nil
			}
			return "a file system (" + string(fs) + ")", nil
		}
	}
	return "", nil
}
