package backing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"torpor/block"
	"torpor/kernel/disk"
)

// File is a regular file or a block device of the host as a block device. Its
// size is the one at the time it was opened. It is a block.VectorDevice, a
// block.AsyncReader and a block.AsyncWriter.
type File struct {
	info  block.Info
	gate  block.Gate
	store store
	sync  syncer
}

// CreateFile makes a regular file of a size, all zeros, durably. Preallocated, it
// holds its space from the beginning. Errors: EEXIST, block.ErrNoSpace.
func CreateFile(path string, sizeBytes int64, preallocate bool) error {
	f, err := disk.Open(path, disk.Create)
	if err != nil {
		return err
	}
	size := func() error { return f.Truncate(sizeBytes) }
	if preallocate && sizeBytes > 0 {
		size = func() error { return f.Allocate(0, sizeBytes) }
	}
	err = size()
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(failed(err), os.Remove(path))
	}
	return nil
}

func syncDirectory(path string) error {
	d, err := disk.OpenDirectory(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// OpenFile opens a regular file or a block device that exists.
//
// Discards of regular files make holes; those of block devices are handed on,
// and Info.Discards is false because nothing is known of what is read then.
// Errors: EWOULDBLOCK if another has a file open to write; EBUSY if a block
// device is mounted or in use otherwise.
func OpenFile(path string, o Options) (*File, error) {
	f, err := disk.Open(path, o.mode())
	if err != nil {
		if errors.Is(err, syscall.EBUSY) {
			return nil, fmt.Errorf("%w (mounted, or in use by another device or process)", err)
		}
		return nil, err
	}
	size, err := f.SizeBytes()
	if err == nil && !o.ReadOnly && !f.BlockDevice() {
		err = f.Lock()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &File{info: o.info(size)}
	d.store = store{File: f, endBytes: size, sync: &d.sync, queue: o.Queue}
	d.info.Discards = !f.BlockDevice()
	return d, nil
}

// Direct says whether I/O goes past the page cache.
func (d *File) Direct() bool { return d.store.Direct() }

// Info describes the device.
func (d *File) Info() block.Info { return d.info }

// ReadAt fills p.
func (d *File) ReadAt(p []byte, off block.Offset) error { return d.ReadVectorAt([][]byte{p}, off) }

// WriteAt writes p.
func (d *File) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	return d.WriteVectorAt([][]byte{p}, off, flags)
}

// ReadVectorAt fills p, by one system call if p has up to 1024 buffers.
func (d *File) ReadVectorAt(p [][]byte, off block.Offset) error {
	if _, err := d.info.CheckVector(p, off); err != nil {
		return d.refuse("read", err)
	}
	if err := d.gate.Enter(); err != nil {
		return d.refuse("read", err)
	}
	defer d.gate.Leave()
	return d.store.read(p, int64(off))
}

// StartRead is ReadAt that need not be waited for.
func (d *File) StartRead(p []byte, off block.Offset, done func(error)) {
	err := d.info.Check(block.Range{Start: off, LenBytes: int64(len(p))})
	if err == nil {
		err = d.gate.Enter()
	}
	if err != nil {
		done(d.refuse("read", err))
		return
	}
	d.store.startRead(p, int64(off), func(err error) {
		d.gate.Leave()
		done(err)
	})
}

// WriteVectorAt writes p, by one system call if p has up to 1024 buffers.
func (d *File) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	r, err := d.info.CheckVector(p, off)
	if err == nil {
		err = d.begin(r)
	}
	if err != nil {
		return d.refuse("write", err)
	}
	defer d.gate.Leave()
	if flags&block.FUA == 0 {
		return d.store.write(p, int64(off), false)
	}
	return d.sync.write(!d.Direct(), func() error { return d.store.write(p, int64(off), true) })
}

// StartWrite is WriteVectorAt that need not be waited for.
func (d *File) StartWrite(p [][]byte, off block.Offset, flags block.Flags, done func(error)) {
	if !d.Direct() {
		go func() { done(d.WriteVectorAt(p, off, flags)) }()
		return
	}
	r, err := d.info.CheckVector(p, off)
	if err == nil {
		err = d.begin(r)
	}
	if err != nil {
		done(d.refuse("write", err))
		return
	}
	fua := flags&block.FUA != 0
	d.store.startWrite(p, int64(off), fua, func(err error) {
		if err == nil && fua {
			err = d.sync.keep(nil) // an error of another that was kept meanwhile
		}
		d.gate.Leave()
		done(err)
	})
}

// Zero makes a range read as zeros: by a hole, by reserved space if
// KeepAllocated, or by writing them.
func (d *File) Zero(r block.Range, flags block.Flags) error {
	if err := d.begin(r); err != nil {
		return d.refuse("zero", err)
	}
	defer d.gate.Leave()
	if err := d.store.zero(int64(r.Start), r.LenBytes, flags); err != nil || flags&block.FUA == 0 {
		return err
	}
	return d.sync.flush(d.store.Sync)
}

// Discard gives the space of a range back.
func (d *File) Discard(r block.Range, flags block.Flags) error {
	if err := d.begin(r); err != nil {
		return d.refuse("discard", err)
	}
	defer d.gate.Leave()
	if err := d.store.discard(int64(r.Start), r.LenBytes); err != nil || flags&block.FUA == 0 {
		return err
	}
	return d.sync.flush(d.store.Sync)
}

// begin lets a change in.
func (d *File) begin(r block.Range) error {
	if err := d.info.CheckChange(r); err != nil {
		return err
	}
	return d.gate.Enter()
}

func (d *File) refuse(verb string, err error) error {
	return fmt.Errorf("%s %s: %w", verb, d.store.Path(), err)
}

// Flush is fdatasync. After an error it fails until the file is opened again.
func (d *File) Flush() error {
	if err := d.gate.Enter(); err != nil {
		return d.refuse("flush", err)
	}
	defer d.gate.Leave()
	return d.sync.flush(d.store.Sync)
}

// Status tells the data of a file from its holes. A block device is all data.
func (d *File) Status(r block.Range) ([]block.Extent, error) {
	if err := d.info.Check(r); err != nil {
		return nil, d.refuse("tell status of", err)
	}
	if err := d.gate.Enter(); err != nil {
		return nil, d.refuse("tell status of", err)
	}
	defer d.gate.Leave()
	return d.store.status(nil, int64(r.Start), r.LenBytes, r.Start)
}

// Close flushes what was written, and gives the file back.
func (d *File) Close() error {
	if err := d.gate.Close(); err != nil {
		return d.refuse("close", err)
	}
	var err error
	if !d.info.ReadOnly {
		err = d.sync.flush(d.store.Sync)
	}
	return errors.Join(err, d.store.Close())
}
