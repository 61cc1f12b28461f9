package hostdev

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"torpor/block"
)

// memory is a device in memory that notes what is done to it, and fails when
// it is told to.
type memory struct {
	mu    sync.RWMutex
	bytes []byte
	used  []bool // by block

	reads, writes, flushes, discards, zeros atomic.Int64
	failing                                 atomic.Int64 // errno of all but reads; 0: none
	failingReads                            atomic.Int64
	discardless                             bool
}

func newMemory(sizeBytes int64) *memory {
	return &memory{bytes: make([]byte, sizeBytes), used: make([]bool, sizeBytes/block.BlockBytes)}
}

func (m *memory) Info() block.Info {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return block.Info{SizeBytes: int64(len(m.bytes)), BlockBytes: block.BlockBytes, PreferredBytes: block.BlockBytes, Volatile: true, Discards: !m.discardless}
}

func (m *memory) check(off block.Offset, n int64, failing *atomic.Int64) error {
	if errno := syscall.Errno(failing.Load()); errno != 0 {
		return fmt.Errorf("told to: %w", errno)
	}
	info := block.Info{SizeBytes: int64(len(m.bytes)), BlockBytes: block.BlockBytes}
	return info.Check(block.Range{Start: off, LenBytes: n})
}

func (m *memory) ReadAt(p []byte, off block.Offset) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.reads.Add(1)
	if err := m.check(off, int64(len(p)), &m.failingReads); err != nil {
		return err
	}
	copy(p, m.bytes[off:])
	return nil
}

func (m *memory) WriteAt(p []byte, off block.Offset, _ block.Flags) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.writes.Add(1)
	if err := m.check(off, int64(len(p)), &m.failing); err != nil {
		return err
	}
	copy(m.bytes[off:], p)
	m.mark(block.Range{Start: off, LenBytes: int64(len(p))}, true)
	return nil
}

// mark is called with mu held for reading: the kernel does not change a block
// twice at a time.
func (m *memory) mark(r block.Range, used bool) {
	for i := int64(r.Start) / block.BlockBytes; i < int64(r.End())/block.BlockBytes; i++ {
		m.used[i] = used
	}
}

func (m *memory) Zero(r block.Range, _ block.Flags) error {
	m.zeros.Add(1)
	return m.clear(r)
}

func (m *memory) Discard(r block.Range, _ block.Flags) error {
	m.discards.Add(1)
	return m.clear(r)
}

func (m *memory) clear(r block.Range) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check(r.Start, r.LenBytes, &m.failing); err != nil {
		return err
	}
	clear(m.bytes[r.Start:r.End()])
	m.mark(r, false)
	return nil
}

func (m *memory) Flush() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.flushes.Add(1)
	return m.check(0, 0, &m.failing)
}

func (m *memory) Status(r block.Range) ([]block.Extent, error) {
	return []block.Extent{{Range: r, Kind: block.Data}}, nil
}

func (m *memory) Close() error { return nil }

func (m *memory) resize(sizeBytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bytes, used := make([]byte, sizeBytes), make([]bool, sizeBytes/block.BlockBytes)
	copy(bytes, m.bytes)
	copy(used, m.used)
	m.bytes, m.used = bytes, used
}

// usedBytes is how much space is taken.
func (m *memory) usedBytes() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var n int64
	for _, used := range m.used {
		if used {
			n += block.BlockBytes
		}
	}
	return n
}

var _ block.Device = (*memory)(nil)

// errno is used by tests to make a device fail.
func (m *memory) fail(errno syscall.Errno) { m.failing.Store(int64(errno)) }

func (m *memory) failReads(errno syscall.Errno) { m.failingReads.Store(int64(errno)) }

// attach exports dev for the time of the test.
func attach(t *testing.T, dev block.Device, spec Spec) *Export {
	t.Helper()
	if spec.Name == "" {
		spec.Name = "volume"
	}
	if spec.MountDir == "" {
		spec.MountDir = t.TempDir() + "/mount"
	}
	e, err := Attach(dev, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if e.ended != nil { // what a failed test leaves
			if err := Clean(spec.MountDir); err != nil {
				t.Error(err)
			}
			return
		}
		if err := e.Detach(); err != nil {
			t.Error(err)
		}
	})
	return e
}
