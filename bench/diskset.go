package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"torpor/block"
	"torpor/block/backing"
	"torpor/kernel/loop"
)

// diskSet is some files on one file system, and a loop device with direct I/O
// on each.
type diskSet struct {
	paths []string
	loops []loop.Device
}

// detachTime is how long others may take to let go of a loop device.
const detachTime = 10 * time.Second

// newDiskSet makes n disks. The files are written once, so that no write to
// them has to allocate space.
func newDiskSet(ctx context.Context, dir string, n int, sizeBytes int64) (*diskSet, error) {
	d := &diskSet{}
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("disk%d", i))
		if err := writeDisk(ctx, path, sizeBytes); err != nil {
			return nil, errors.Join(err, d.close())
		}
		device, err := attachDisk(path)
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
		d.paths, d.loops = append(d.paths, path), append(d.loops, device)
	}
	return d, nil
}

func attachDisk(path string) (loop.Device, error) {
	return loop.Attach(loop.Spec{BackingPath: path, BlockBytes: block.BlockBytes, DirectIO: true})
}

func writeDisk(ctx context.Context, path string, sizeBytes int64) (err error) {
	if err := backing.CreateFile(path, sizeBytes, true); err != nil {
		return err
	}
	f, err := backing.OpenFile(path, backing.Options{Direct: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffer := block.AlignedBuffer(1 << 20)
	for i := range buffer {
		buffer[i] = byte(i)
	}
	for off := int64(0); off < sizeBytes; off += int64(len(buffer)) {
		n := min(int64(len(buffer)), sizeBytes-off)
		if err := errors.Join(f.WriteAt(buffer[:n], block.Offset(off), 0), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// names lists the loop devices from the first one on.
func (d *diskSet) names(first int) []string {
	var names []string
	for _, l := range d.loops[first:] {
		names = append(names, l.Path())
	}
	return names
}

// take detaches the first n loop devices, and give attaches them again.
func (d *diskSet) take(n int) error {
	for i, l := range d.loops[:n] {
		if err := l.Detach(d.paths[i], detachTime); err != nil {
			return err
		}
	}
	return nil
}

func (d *diskSet) give(n int) (err error) {
	for i := range n {
		if d.loops[i], err = attachDisk(d.paths[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *diskSet) close() (err error) {
	for i, l := range d.loops {
		if info, missing := l.Info(); missing == nil && info.BackingPath == d.paths[i] {
			err = errors.Join(err, l.Detach(d.paths[i], detachTime))
		}
	}
	return err
}
