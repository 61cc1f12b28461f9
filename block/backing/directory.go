package backing

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"torpor/block"
	"torpor/kernel/disk"
)

// Directory is a directory of the host as a block device. Each chunk of the
// device that was written is a file, named by its number in eight digits; the
// others are holes. Discarding a whole chunk removes its file. A file gets all
// its space when it is made. It is a block.VectorDevice.
type Directory struct {
	info    block.Info
	spec    DirectorySpec
	options Options
	direct  bool
	dir     *disk.Directory
	gate    block.Gate
	sync    syncer
	clock   atomic.Int64
	maxOpen int

	namesChanged atomic.Bool // since the directory was synced
	names        sync.Mutex  // held to sync the directory

	mu     sync.Mutex // below a chunk's
	chunks map[int64]*chunk
	opened []*chunk
}

// maxOpenFiles bounds the descriptors of a Directory, but for those in use.
const maxOpenFiles = 256

// OpenDirectory opens a directory that CreateDirectory made a device of. Errors:
// EWOULDBLOCK if another has it open to write.
func OpenDirectory(path string, o Options) (*Directory, error) {
	spec, err := readSpec(path)
	if err != nil {
		return nil, err
	}
	dir, err := disk.OpenDirectory(path)
	if err != nil {
		return nil, err
	}
	d := &Directory{
		info: o.info(spec.SizeBytes), spec: spec, options: o, dir: dir,
		maxOpen: maxOpenFiles, chunks: map[int64]*chunk{},
	}
	if !o.ReadOnly {
		err = dir.Lock()
	}
	if err == nil {
		err = errors.Join(d.list(), d.probe())
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return d, nil
}

// list looks which chunks have files.
func (d *Directory) list() error {
	entries, err := os.ReadDir(d.dir.Path())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if n, ok := d.spec.parseChunkName(e.Name()); ok {
			d.chunks[n] = &chunk{number: n, exists: true}
		}
	}
	// A file that was made, or removed, before a crash need not be durable yet.
	d.namesChanged.Store(!d.options.ReadOnly)
	return nil
}

// probe looks whether direct I/O is possible.
func (d *Directory) probe() error {
	f, err := d.dir.Open(specFile, d.options.mode()|disk.ReadOnly)
	if err != nil {
		return err
	}
	d.direct = f.Direct()
	return f.Close()
}

// Direct says whether I/O goes past the page cache.
func (d *Directory) Direct() bool { return d.direct }

// Spec says what the device was made as.
func (d *Directory) Spec() DirectorySpec { return d.spec }

// Info describes the device.
func (d *Directory) Info() block.Info { return d.info }

// ReadAt fills p.
func (d *Directory) ReadAt(p []byte, off block.Offset) error {
	return d.ReadVectorAt([][]byte{p}, off)
}

// WriteAt writes p.
func (d *Directory) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	return d.WriteVectorAt([][]byte{p}, off, flags)
}

// ReadVectorAt fills p, by a system call for each chunk.
func (d *Directory) ReadVectorAt(p [][]byte, off block.Offset) error {
	r, err := d.info.CheckVector(p, off)
	if err == nil {
		err = d.gate.Enter()
	}
	if err != nil {
		return d.refuse("read", err)
	}
	defer d.gate.Leave()
	return d.spec.eachChunk(r, func(n, off int64, part block.Range) error {
		var here [][]byte
		here, p = split(p, part.LenBytes)
		return d.use(n, false, func(f *store) error {
			if f == nil {
				for _, b := range here {
					clear(b)
				}
				return nil
			}
			return f.read(here, off)
		})
	})
}

// WriteVectorAt writes p, by a system call for each chunk. Errors:
// block.ErrNoSpace if there is none for the file of a chunk.
func (d *Directory) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	r, err := d.info.CheckVector(p, off)
	if err == nil {
		err = d.begin(r)
	}
	if err != nil {
		return d.refuse("write", err)
	}
	defer d.gate.Leave()
	if flags&block.FUA == 0 {
		return d.write(p, r, false)
	}
	return d.sync.write(!d.direct, func() error {
		if err := d.write(p, r, true); err != nil {
			return err
		}
		return d.syncNames()
	})
}

func (d *Directory) write(p [][]byte, r block.Range, fua bool) error {
	return d.spec.eachChunk(r, func(n, off int64, part block.Range) error {
		var here [][]byte
		here, p = split(p, part.LenBytes)
		return d.change(n, true, func(f *store) error { return f.write(here, off, fua) })
	})
}

// change is use for what changes the file; afterwards it is to be synced.
func (d *Directory) change(n int64, create bool, do func(f *store) error) error {
	return d.use(n, create, func(f *store) error {
		if f == nil {
			return nil
		}
		// Not before: a flush meanwhile would take it as done.
		defer d.chunk(n).dirty.Store(true)
		return do(f)
	})
}

// Zero makes a range read as zeros. A chunk without a file stays so.
func (d *Directory) Zero(r block.Range, flags block.Flags) error {
	if err := d.begin(r); err != nil {
		return d.refuse("zero", err)
	}
	defer d.gate.Leave()
	err := d.spec.eachChunk(r, func(n, off int64, part block.Range) error {
		return d.change(n, false, func(f *store) error { return f.zero(off, part.LenBytes, flags) })
	})
	return d.settle(err, flags)
}

// Discard gives the space of a range back, and the files of whole chunks.
func (d *Directory) Discard(r block.Range, flags block.Flags) error {
	if err := d.begin(r); err != nil {
		return d.refuse("discard", err)
	}
	defer d.gate.Leave()
	err := d.spec.eachChunk(r, func(n, off int64, part block.Range) error {
		if part.LenBytes == d.spec.chunkBytes(n) {
			return d.remove(n)
		}
		return d.change(n, false, func(f *store) error { return f.discard(off, part.LenBytes) })
	})
	return d.settle(err, flags)
}

// settle ends a change that may be FUA.
func (d *Directory) settle(err error, flags block.Flags) error {
	if err != nil || flags&block.FUA == 0 {
		return err
	}
	return d.sync.flush(d.syncAll)
}

// begin lets a change in.
func (d *Directory) begin(r block.Range) error {
	if err := d.info.CheckChange(r); err != nil {
		return err
	}
	return d.gate.Enter()
}

func (d *Directory) refuse(verb string, err error) error {
	return fmt.Errorf("%s %s: %w", verb, d.dir.Path(), err)
}

// Flush is fdatasync of the files that were written, and fsync of the directory
// if files were made or removed. After an error it fails until the directory is
// opened again.
func (d *Directory) Flush() error {
	if err := d.gate.Enter(); err != nil {
		return d.refuse("flush", err)
	}
	defer d.gate.Leave()
	return d.sync.flush(d.syncAll)
}

// Status tells data from holes.
func (d *Directory) Status(r block.Range) ([]block.Extent, error) {
	err := d.info.Check(r)
	if err == nil {
		err = d.gate.Enter()
	}
	if err != nil {
		return nil, d.refuse("tell status of", err)
	}
	defer d.gate.Leave()
	var extents []block.Extent
	err = d.spec.eachChunk(r, func(n, off int64, part block.Range) error {
		return d.use(n, false, func(f *store) (err error) {
			if f == nil {
				extents = block.AppendExtent(extents, part, block.Hole)
				return nil
			}
			extents, err = f.status(extents, off, part.LenBytes, part.Start)
			return err
		})
	})
	return extents, err
}

// Close flushes what was written, and closes all files.
func (d *Directory) Close() error {
	if err := d.gate.Close(); err != nil {
		return d.refuse("close", err)
	}
	var err error
	if !d.options.ReadOnly {
		err = d.sync.flush(d.syncAll)
	}
	for _, c := range d.chunks {
		if c.file != nil {
			d.closeFile(c)
		}
	}
	if err == nil {
		err = d.sync.keep(nil)
	}
	return errors.Join(err, d.dir.Close())
}

// split cuts a vector after n bytes. p itself is not changed.
func split(p [][]byte, n int64) (front, back [][]byte) {
	for i, b := range p {
		if int64(len(b)) < n {
			n -= int64(len(b))
			continue
		}
		front = append(append(front, p[:i]...), b[:n])
		return front, append([][]byte{b[n:]}, p[i+1:]...)
	}
	return p, nil
}
