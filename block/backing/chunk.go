package backing

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"torpor/block"
	"torpor/kernel/disk"
)

// chunk is one file of a Directory, or a hole that has none.
//
//	hole <--first write, discard--> closed <--use, eviction--> open
type chunk struct {
	number int64
	dirty  atomic.Bool  // written since its last sync; only while open
	used   atomic.Int64 // time of the last use, by Directory.clock

	mu     sync.RWMutex // read by those who use the file, written by those who change this:
	exists bool         // has a file
	file   *store       // nil unless open
}

// chunk returns the chunk of a number.
func (d *Directory) chunk(n int64) *chunk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.chunks[n]
	if c == nil {
		c = &chunk{number: n}
		d.chunks[n] = c
	}
	return c
}

// use calls do with the open file of a chunk, which is made if create, or else
// nil if there is none.
func (d *Directory) use(n int64, create bool, do func(f *store) error) error {
	c := d.chunk(n)
	for {
		if done, err := c.try(d, create, do); done {
			return err
		}
		if err := d.open(c); err != nil {
			return err
		}
	}
}

// try calls do unless the file has to be opened before.
func (c *chunk) try(d *Directory, create bool, do func(f *store) error) (done bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.file == nil && (c.exists || create) {
		return false, nil
	}
	c.used.Store(d.clock.Add(1))
	return true, do(c.file)
}

// open opens the file of a chunk, which is made if it is not there.
func (d *Directory) open(c *chunk) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		return nil
	}
	file, err := d.openFile(c)
	if err != nil {
		return failed(err)
	}
	c.file = file
	c.used.Store(d.clock.Add(1))
	d.mu.Lock()
	d.opened = append(d.opened, c)
	d.mu.Unlock()
	d.evict(c)
	return nil
}

func (d *Directory) openFile(c *chunk) (*store, error) {
	wantBytes := d.spec.chunkBytes(c.number)
	if !c.exists {
		return d.createFile(c, wantBytes)
	}
	f, err := d.dir.Open(chunkName(c.number), d.options.mode())
	if err != nil {
		return nil, err
	}
	size, err := f.SizeBytes()
	if err == nil && size < wantBytes && !d.options.ReadOnly {
		// The machine crashed before the size of the new file was durable.
		err = f.Truncate(wantBytes)
		size = wantBytes
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &store{File: f, endBytes: size, sync: &d.sync}, nil
}

func (d *Directory) createFile(c *chunk, sizeBytes int64) (*store, error) {
	f, err := d.dir.Open(chunkName(c.number), d.options.mode()|disk.Create)
	if err != nil {
		return nil, err
	}
	err = f.Allocate(0, sizeBytes)
	if unsupported(err) {
		err = f.Truncate(sizeBytes)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), d.dir.Remove(chunkName(c.number)))
	}
	c.exists = true
	d.namesChanged.Store(true)
	return &store{File: f, endBytes: sizeBytes, sync: &d.sync}, nil
}

// evict closes files that were not used for longest until there are no more
// than the limit. Those in use, and keep, stay.
func (d *Directory) evict(keep *chunk) {
	d.mu.Lock()
	excess := len(d.opened) - d.maxOpen
	var old []*chunk
	if excess > 0 {
		old = slices.SortedFunc(slices.Values(d.opened), func(a, b *chunk) int {
			return cmp.Compare(a.used.Load(), b.used.Load())
		})
	}
	d.mu.Unlock()
	for _, c := range old {
		if excess <= 0 {
			return
		}
		if c != keep && c.mu.TryLock() {
			if c.file != nil {
				d.closeFile(c)
				excess--
			}
			c.mu.Unlock()
		}
	}
}

// closeFile closes the open file of a chunk; its mu is held. What was written is
// synced before: once closed, the kernel may forget that it lost some of it.
// Errors are kept.
func (d *Directory) closeFile(c *chunk) {
	if c.dirty.Load() {
		d.sync.keep(c.file.Sync())
		c.dirty.Store(false) // not before: a flush would pass over it
	}
	d.sync.keep(c.file.Close())
	c.file = nil
	d.mu.Lock()
	d.opened = slices.DeleteFunc(d.opened, func(o *chunk) bool { return o == c })
	d.mu.Unlock()
}

// remove makes a chunk a hole.
func (d *Directory) remove(n int64) error {
	c := d.chunk(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		c.dirty.Store(false)
		d.closeFile(c)
	}
	if !c.exists {
		return nil
	}
	if err := d.dir.Remove(chunkName(n)); err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	c.exists = false
	d.namesChanged.Store(true)
	return nil
}

// maxSyncs is how many files are synced at a time.
const maxSyncs = 8

// syncAll makes durable what was written, and which files there are.
func (d *Directory) syncAll() error {
	d.mu.Lock()
	dirty := slices.DeleteFunc(slices.Clone(d.opened), func(c *chunk) bool { return !c.dirty.Load() })
	d.mu.Unlock()
	var workers sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, min(maxSyncs, len(dirty)))
	for w := range errs {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(dirty)); i = next.Add(1) - 1 {
				errs[w] = errors.Join(errs[w], dirty[i].sync())
			}
		})
	}
	workers.Wait()
	return errors.Join(append(errs, d.syncNames())...)
}

func (c *chunk) sync() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.file == nil || !c.dirty.Swap(false) {
		return nil // closed, or removed, meanwhile
	}
	return c.file.Sync()
}

// syncNames makes durable which files there are. It returns after another call
// that is about to do so, whose error is kept.
func (d *Directory) syncNames() error {
	d.names.Lock()
	defer d.names.Unlock()
	if !d.namesChanged.Swap(false) {
		return nil
	}
	err := d.dir.Sync()
	d.sync.keep(err)
	return err
}

// eachChunk calls f with the parts of r by chunk: its number, the offset in it,
// and the part.
func (s DirectorySpec) eachChunk(r block.Range, f func(n, off int64, part block.Range) error) error {
	for r.LenBytes > 0 {
		n, off := int64(r.Start)/s.ChunkBytes, int64(r.Start)%s.ChunkBytes
		part := block.Range{Start: r.Start, LenBytes: min(r.LenBytes, s.ChunkBytes-off)}
		if err := f(n, off, part); err != nil {
			return err
		}
		r = block.Range{Start: part.End(), LenBytes: r.LenBytes - part.LenBytes}
	}
	return nil
}
