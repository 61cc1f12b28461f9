package hostdev

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"torpor/block"
	"torpor/block/memory"
)

// device is one in memory that counts what is done to it, fails when it is told
// to, and changes its size.
type device struct {
	*memory.Device
	sizeBytes   atomic.Int64 // up to that of the device below
	discardless bool         // set before use

	writes, flushes, discards, zeros atomic.Int64
	misaligned                       atomic.Int64 // buffers of reads and writes
	failing, failingReads            atomic.Int64 // errno of all changes, and of reads; 0: none
}

// mostBytes is what a device can grow to.
const mostBytes = 1 << 30

func newDevice(t testing.TB, sizeBytes int64) *device {
	t.Helper()
	below, err := memory.New(memory.Spec{SizeBytes: mostBytes, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { below.Close() })
	d := &device{Device: below}
	d.sizeBytes.Store(sizeBytes)
	return d
}

func (d *device) Info() block.Info {
	info := d.Device.Info()
	info.SizeBytes = d.sizeBytes.Load()
	info.Discards = !d.discardless
	return info
}

func told(failing *atomic.Int64) error {
	if errno := syscall.Errno(failing.Load()); errno != 0 {
		return fmt.Errorf("told to fail: %w", errno)
	}
	return nil
}

// look counts buffers that a disk could not use directly.
func (d *device) look(p []byte) {
	if !block.Aligned(p) {
		d.misaligned.Add(1)
	}
}

func (d *device) ReadAt(p []byte, off block.Offset) error {
	d.look(p)
	if err := told(&d.failingReads); err != nil {
		return err
	}
	return d.Device.ReadAt(p, off)
}

func (d *device) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	d.writes.Add(1)
	d.look(p)
	if err := told(&d.failing); err != nil {
		return err
	}
	return d.Device.WriteAt(p, off, flags)
}

func (d *device) Zero(r block.Range, flags block.Flags) error {
	d.zeros.Add(1)
	if err := told(&d.failing); err != nil {
		return err
	}
	return d.Device.Zero(r, flags)
}

func (d *device) Discard(r block.Range, flags block.Flags) error {
	d.discards.Add(1)
	if err := told(&d.failing); err != nil {
		return err
	}
	return d.Device.Discard(r, flags)
}

func (d *device) Flush() error {
	d.flushes.Add(1)
	return told(&d.failing)
}

// fail makes all changes fail, until errno is 0.
func (d *device) fail(errno syscall.Errno) { d.failing.Store(int64(errno)) }

func (d *device) failReads(errno syscall.Errno) { d.failingReads.Store(int64(errno)) }

// content reads from the device itself.
func (d *device) content(t *testing.T, off block.Offset, lenBytes int) []byte {
	t.Helper()
	p := make([]byte, lenBytes)
	if err := d.Device.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

// usedBytes is how much space is taken.
func (d *device) usedBytes(t *testing.T) int64 {
	t.Helper()
	extents, err := d.Status(block.Range{LenBytes: mostBytes})
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, e := range extents {
		if e.Kind == block.Data {
			n += e.LenBytes
		}
	}
	return n
}

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
