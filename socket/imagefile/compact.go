package imagefile

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"torpor/host"
	"torpor/kernel/openfile"
	"torpor/socket"
)

// Compact rewrites the file without what is dead, and gives that space back.
// The owner calls it, when Stats says that it is worthwhile: nothing that is
// added waits for it unexpectedly. The file can be used meanwhile; others wait
// at most some milliseconds, for the disk at the end and for long records longer.
//
// Entries that are found damaged are named in the Recovery and not copied. With
// an error, and whenever the process ends, the file is the old one or the new
// one and holds the same.
func (f *File) Compact() (*Recovery, error) {
	f.compaction.Lock()
	defer f.compaction.Unlock()
	c, err := f.beginCompaction()
	if err == nil {
		err = c.run()
	}
	if err != nil {
		return nil, fmt.Errorf("compact socket image %s: %w", f.path, err)
	}
	return &c.found, nil
}

// compaction copies the living entries of a file to a new one, and those that
// changed meanwhile once more.
type compaction struct {
	file     *File
	old, new *store
	end      int64 // of the old file when it began
	found    Recovery
	batch    []byte
	hashes   []uint64
}

// Others wait while as much is copied.
const (
	copyBytes   = 128 << 10
	touchedMost = 128 // keys
)

func (f *File) beginCompaction() (*compaction, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.store == nil {
		return nil, os.ErrClosed
	}
	if f.store.broken != nil {
		return nil, f.store.broken
	}
	fresh, err := createNew(f.path, f.store.seed)
	if err != nil {
		return nil, err
	}
	f.touched = map[socket.Key]struct{}{}
	return &compaction{file: f, old: f.store, new: fresh, end: f.store.end}, nil
}

func (c *compaction) run() error {
	err := c.copyAll()
	if err == nil {
		err = openfile.SyncData(c.new.file)
	}
	// Copying is faster than changing, so each round is shorter than the one before.
	for left := touchedMost; err == nil && left >= touchedMost; {
		left, err = c.copyTouched()
	}
	c.file.mu.Lock()
	defer c.file.mu.Unlock()
	if err == nil {
		err = c.finish()
	}
	c.file.touched = nil
	if c.file.store != c.new {
		c.new.file.Close()
		os.Remove(c.file.path + newSuffix)
	}
	return err
}

// copyAll copies what the file held at the beginning.
func (c *compaction) copyAll() error {
	scan := newScanner(c.old.file, c.old.header, c.end)
	for scan.offset < c.end {
		if err := c.copySome(scan); err != nil {
			return err
		}
	}
	return nil
}

// copySome copies about copyBytes.
func (c *compaction) copySome(scan *scanner) error {
	c.file.mu.RLock()
	defer c.file.mu.RUnlock()
	if err := c.old.broken; err != nil {
		return err
	}
	c.batch, c.hashes = c.batch[:0], c.hashes[:0]
	for until := scan.offset + copyBytes; scan.offset < until; {
		it, ok, err := scan.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch {
		case it.state == damaged:
			var lost []Lost
			lost, err = c.old.lost(&it)
			c.found.Lost = append(c.found.Lost, lost...)
		case it.state == dead || it.kind != kindRecord:
		default:
			err = c.copyRecord(&it)
		}
		if err != nil {
			return err
		}
	}
	return c.flush()
}

// copyRecord adds a record to the batch, as it is or with its window.
func (c *compaction) copyRecord(it *item) error {
	key, err := socket.DecodeKey(it.body())
	if err != nil {
		return err
	}
	_, bodyBytes := parseWord(it.head)
	p := place{record: uint32(it.offset / unitBytes), bytes: bodyBytes}
	body := it.body()
	if len(body) < bodyBytes {
		body, err = c.old.record(p)
	}
	if err == nil && it.state == amended {
		var spec socket.Spec
		if spec, err = c.old.get(&key); err == nil {
			body = spec.Append(nil)
		}
	}
	if errors.Is(err, host.ErrNotFound) {
		return nil // removed since it was scanned
	}
	if errors.Is(err, host.ErrCorrupt) {
		c.found.Lost = append(c.found.Lost, Lost{Offset: it.offset, Bytes: it.end - it.offset, Key: key})
		return nil
	}
	if err != nil {
		return err
	}
	start := len(c.batch)
	b := append(openEntry(c.batch), body...)
	c.batch = c.new.header.seal(b, start, c.new.end+int64(start), kindRecord, live)
	c.hashes = append(c.hashes, c.new.hash(&key))
	return nil
}

// flush writes the batch.
func (c *compaction) flush() error {
	offset, b := c.new.end, c.batch
	if err := c.new.append(b); err != nil {
		return err
	}
	c.new.used += int64(len(b))
	for _, hash := range c.hashes {
		_, n := parseWord(b)
		c.new.index.insert(hash, uint32(offset/unitBytes))
		offset += span(n)
		b = b[span(n):]
	}
	return nil
}

// copyTouched copies what changed meanwhile, and returns how much changed since.
func (c *compaction) copyTouched() (int, error) {
	c.file.mu.Lock()
	touched := c.file.touched
	c.file.touched = map[socket.Key]struct{}{}
	c.file.mu.Unlock()
	keys := slices.Collect(maps.Keys(touched))
	for some := range slices.Chunk(keys, touchedMost) {
		c.file.mu.RLock()
		err := c.copyKeys(some)
		c.file.mu.RUnlock()
		if err != nil {
			return 0, err
		}
	}
	c.file.mu.RLock()
	defer c.file.mu.RUnlock()
	return len(c.file.touched), nil
}

// copyKeys makes the new file hold of some keys what the old one does.
func (c *compaction) copyKeys(keys []socket.Key) error {
	var specs []*socket.Spec
	for _, k := range keys {
		if err := c.new.remove(&k); err != nil && !errors.Is(err, host.ErrNotFound) {
			return err
		}
		spec, err := c.old.get(&k)
		switch {
		case errors.Is(err, host.ErrNotFound):
		case errors.Is(err, host.ErrCorrupt):
			c.found.Lost = append(c.found.Lost, Lost{Key: k})
		case err != nil:
			return err
		default:
			specs = append(specs, &spec)
		}
	}
	return c.new.add(specs)
}

// finish copies the rest, while all others wait, and lets the new file be the file.
func (c *compaction) finish() error {
	if err := c.old.broken; err != nil {
		return err
	}
	if err := c.copyKeys(slices.Collect(maps.Keys(c.file.touched))); err != nil {
		return err
	}
	if err := openfile.SyncData(c.new.file); err != nil {
		return err
	}
	if err := os.Rename(c.file.path+newSuffix, c.file.path); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	c.file.store = c.new
	c.new.clear()
	return errors.Join(syncDir(c.file.path), c.old.file.Close())
}
