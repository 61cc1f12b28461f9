package imagefile

import (
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"

	"torpor/kernel/openfile"
	"torpor/socket"
)

// File is an open socket image. See the package comment for concurrency.
type File struct {
	path       string
	compaction sync.Mutex // of one Compact at a time; taken before mu

	mu      sync.RWMutex
	store   *store                  // nil if closed
	touched map[socket.Key]struct{} // keys whose entries changed since a compaction began; nil if there is none
	one     [1]*socket.Spec
}

// Stats are sizes.
type Stats struct {
	Connections int
	Bytes       int64 // of the file
	DeadBytes   int64 // of the file, which Compact gives back
	IndexBytes  int64 // of memory
}

// Worthwhile reports whether Compact would at least halve a file that is not small.
func (s Stats) Worthwhile() bool { return s.DeadBytes > compactLeast && s.DeadBytes > s.Bytes/2 }

// compactLeast dead bytes do not matter.
const compactLeast = 1 << 20

// Add adds a connection, which must not be there: host.ErrExists. Without room
// the error is that of the system, and the file is as before.
func (f *File) Add(s *socket.Spec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.one[0] = s
	err := f.add(f.one[:])
	f.one[0] = nil
	if err != nil {
		return fmt.Errorf("add connection: %w", err)
	}
	return nil
}

// AddAll adds connections with one write: all, or none and an error. If the
// process ends meanwhile, some may be there.
func (f *File) AddAll(all []*socket.Spec) error {
	if len(all) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.add(all); err != nil {
		return fmt.Errorf("add %d connections: %w", len(all), err)
	}
	return nil
}

func (f *File) add(all []*socket.Spec) error {
	if f.store == nil {
		return os.ErrClosed
	}
	if err := f.store.add(all); err != nil {
		return err
	}
	if f.touched != nil {
		for _, s := range all {
			f.touched[s.Key] = struct{}{}
		}
	}
	return nil
}

// Get reads a connection. Errors: host.ErrNotFound; host.ErrCorrupt if it is
// damaged, then it stays until it is removed.
func (f *File) Get(k socket.Key) (socket.Spec, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return socket.Spec{}, fmt.Errorf("get connection: %w", os.ErrClosed)
	}
	s, err := f.store.get(&k)
	if err != nil {
		return socket.Spec{}, fmt.Errorf("get connection %s to %s: %w", k.Local, k.Remote, err)
	}
	return s, nil
}

// Has reports whether a connection is there, damaged or not. It is true if the
// file can not be read, for what is there must not be taken for gone.
func (f *File) Has(k socket.Key) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return false
	}
	_, found, err := f.store.find(&k, f.store.hash(&k))
	return found || err != nil
}

// Remove removes a connection, damaged or not. It needs no space.
func (f *File) Remove(k socket.Key) error {
	return f.change("remove connection", k, func(s *store) error {
		if err := s.remove(&k); err != nil {
			return err
		}
		if f.touched == nil {
			s.clear()
		}
		return nil
	})
}

// SetWindow replaces the window of a connection.
func (f *File) SetWindow(k socket.Key, w socket.Window) error {
	return f.change("set window of connection", k, func(s *store) error { return s.setWindow(&k, w) })
}

func (f *File) change(verb string, k socket.Key, do func(*store) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := os.ErrClosed
	if f.store != nil {
		if f.touched != nil {
			f.touched[k] = struct{}{}
		}
		err = do(f.store)
	}
	if err != nil {
		return fmt.Errorf("%s %s to %s: %w", verb, k.Local, k.Remote, err)
	}
	return nil
}

// Len returns the number of connections.
func (f *File) Len() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return 0
	}
	return f.store.index.count
}

// All yields the keys of all connections but those whose key is damaged, in no
// order. The file may be changed meanwhile; what is there all the time is
// yielded once.
func (f *File) All() iter.Seq[socket.Key] {
	return func(yield func(socket.Key) bool) {
		// Which table a key is in never changes, so one after the other is a
		// snapshot that suffices.
		for i := range len(index{}.tables) {
			for _, k := range f.tableKeys(i) {
				if !yield(k) {
					return
				}
			}
		}
	}
}

// tableKeys reads the keys of one table of the index.
func (f *File) tableKeys(i int) []socket.Key {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return nil
	}
	t := &f.store.index.tables[i]
	units := make([]uint32, 0, t.used)
	for _, s := range t.slots {
		if s != 0 {
			units = append(units, s.unit())
		}
	}
	slices.Sort(units)
	keys := make([]socket.Key, 0, len(units))
	for _, unit := range units {
		if k, err := f.store.key(unit); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

// Sync writes all that was done before it to the disk. Others need not wait.
func (f *File) Sync() error {
	if err := f.onFile(openfile.SyncData); err != nil {
		return fmt.Errorf("sync socket image: %w", err)
	}
	return nil
}

// DropCache syncs, and gives the page cache of the file back: connections that
// sleep for long then cost the memory of the index only.
func (f *File) DropCache() error {
	err := f.onFile(func(file *os.File) error {
		if err := openfile.SyncData(file); err != nil {
			return err
		}
		return openfile.DropCache(file)
	})
	if err != nil {
		return fmt.Errorf("drop cache of socket image: %w", err)
	}
	return nil
}

// onFile calls do, which may take long, without a lock. A compaction that goes
// on to another file has synced that.
func (f *File) onFile(do func(*os.File) error) error {
	for {
		file, err := f.current()
		if err != nil {
			return err
		}
		if err = do(file); err == nil {
			return nil
		}
		if now, _ := f.current(); now == file {
			return err
		}
	}
}

func (f *File) current() (*os.File, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return nil, os.ErrClosed
	}
	return f.store.file, nil
}

// Stats returns sizes.
func (f *File) Stats() Stats {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return Stats{}
	}
	s := f.store
	return Stats{Connections: s.index.count, Bytes: s.end, DeadBytes: s.end - entriesAt - s.used, IndexBytes: s.index.bytes()}
}

// Close closes the file and lets another process open it. It does not sync.
func (f *File) Close() error {
	f.compaction.Lock()
	defer f.compaction.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.store == nil {
		return fmt.Errorf("close socket image: %w", os.ErrClosed)
	}
	err := f.store.file.Close()
	f.store = nil
	if err != nil {
		return fmt.Errorf("close socket image: %w", err)
	}
	return nil
}
