package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Allocate reserves space for a range of a regular file, which becomes longer
// if it ends before. What was not written yet reads as zeros. Errors:
// EOPNOTSUPP if the file system can not.
func (f *File) Allocate(off, lenBytes int64) error {
	return f.fallocate("allocate", 0, off, lenBytes)
}

// Truncate sets the size of a regular file.
func (f *File) Truncate(sizeBytes int64) error {
	if err := untilDone(func() error { return unix.Ftruncate(f.fd, sizeBytes) }); err != 0 {
		return fmt.Errorf("set size of %s: %w", f.path, err)
	}
	return nil
}

// Zero makes a range read as zeros and keeps its space. A block device may
// write them. Errors: EOPNOTSUPP.
func (f *File) Zero(off, lenBytes int64) error {
	return f.fallocate("zero", unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, lenBytes)
}

// Punch makes a range read as zeros and gives its space back, or at least takes
// no longer for it than that. Errors: EOPNOTSUPP.
func (f *File) Punch(off, lenBytes int64) error {
	return f.fallocate("punch hole in", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, lenBytes)
}

func (f *File) fallocate(verb string, mode uint32, off, lenBytes int64) error {
	if lenBytes == 0 {
		return nil
	}
	if err := untilDone(func() error { return unix.Fallocate(f.fd, mode, off, lenBytes) }); err != 0 {
		return fmt.Errorf("%s %s at %d: %w", verb, f.path, off, err)
	}
	return nil
}

// Discard tells a block device that a range is not needed any more. What it
// reads as then is the device's choice. Errors: EOPNOTSUPP.
func (f *File) Discard(off, lenBytes int64) error {
	if lenBytes == 0 {
		return nil
	}
	if err := untilDone(func() error { return discard(f.fd, off, lenBytes) }); err != 0 {
		return fmt.Errorf("discard %s at %d: %w", f.path, off, err)
	}
	return nil
}

// Extent is a run of bytes of a file.
type Extent struct{ Start, End int64 }

// Data lists what of a range of a regular file is not a hole, in order.
// Reserved space that was never written counts as a hole.
func (f *File) Data(off, lenBytes int64) ([]Extent, error) {
	var extents []Extent
	for end := off + lenBytes; off < end; {
		start, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO { // no data behind
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list extents of %s: %w", f.path, err)
		}
		if start >= end {
			break
		}
		stop, err := unix.Seek(f.fd, start, unix.SEEK_HOLE)
		if err == unix.ENXIO { // became shorter, or a hole, meanwhile
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list extents of %s: %w", f.path, err)
		}
		off = min(stop, end)
		if start < off {
			extents = append(extents, Extent{start, off})
		}
	}
	return extents, nil
}
