package align_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/block"
	"torpor/block/align"
	"torpor/block/devicetest"
	"torpor/block/fault"
	"torpor/block/memory"
	"torpor/block/trace"
)

func newMemory(t testing.TB, blockBytes int) *memory.Device {
	t.Helper()
	d, err := memory.New(memory.Spec{SizeBytes: 1 << 20, BlockBytes: blockBytes, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func wrap(t testing.TB, below block.Device, blockBytes int) *align.Device {
	t.Helper()
	d, err := align.New(below, blockBytes)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSuite aligns what is traced, and so crashes it.
func TestSuite(t *testing.T) {
	for _, sizes := range [][2]int{{1, 4096}, {512, 4096}, {1, 512}, {4096, 64 << 10}, {4096, 4096}} {
		t.Run(fmt.Sprintf("%d on %d", sizes[0], sizes[1]), func(t *testing.T) {
			traces := map[block.Device]*trace.Recording{}
			over := func(t testing.TB, below block.Device) block.Device {
				traced, err := trace.New(below)
				if err != nil {
					t.Fatal(err)
				}
				d := wrap(t, traced, sizes[0])
				traces[d] = traced.Recording()
				return d
			}
			crash := func(t testing.TB, d block.Device, r *rand.Rand) block.Device {
				rec := traces[d]
				clones, err := rec.Cut(rec.Points(), r)
				if err != nil {
					t.Fatal(err)
				}
				return over(t, clones[0])
			}
			fresh := func(t testing.TB) block.Device { return over(t, newMemory(t, sizes[1])) }
			devicetest.Run(t, fresh, devicetest.Options{Crash: crash, Steps: 200})
		})
	}
}

// vague is a device that does not say what discarded blocks read as.
type vague struct{ block.Device }

func (v vague) Info() block.Info {
	info := v.Device.Info()
	info.Discards = false
	return info
}

func TestVagueSuite(t *testing.T) {
	fresh := func(t testing.TB) block.Device { return wrap(t, vague{newMemory(t, 4096)}, 512) }
	devicetest.Run(t, fresh, devicetest.Options{Steps: 100})
}

// readOnly is a device that refuses changes.
type readOnly struct{ block.Device }

func (r readOnly) Info() block.Info {
	info := r.Device.Info()
	info.ReadOnly = true
	return info
}

func TestReadOnly(t *testing.T) {
	devicetest.RunReadOnly(t, wrap(t, readOnly{newMemory(t, 4096)}, 1))
}

func TestNew(t *testing.T) {
	for _, n := range []int{0, -1, 3, 8192} {
		if _, err := align.New(newMemory(t, 4096), n); !errors.Is(err, block.ErrAlignment) {
			t.Errorf("made blocks of %d bytes: %v", n, err)
		}
	}
	info := wrap(t, newMemory(t, 4096), 1).Info()
	want := newMemory(t, 4096).Info()
	want.BlockBytes = 1
	if diff := cmp.Diff(want, info); diff != "" {
		t.Error(diff)
	}
}

// TestHolesStay discards parts of holes, which take no space for it.
func TestHolesStay(t *testing.T) {
	below := newMemory(t, 4096)
	d := wrap(t, below, 1)
	for i := range block.Offset(20) {
		r := block.Range{Start: i * 1111, LenBytes: 999}
		if err := errors.Join(d.Discard(r, 0), d.Zero(r, block.KeepAllocated)); err != nil {
			t.Fatal(err)
		}
	}
	if n := below.AllocatedBytes(); n != 0 {
		t.Errorf("%d bytes are allocated", n)
	}
}

// TestEmpty makes requests of nothing inside a large block: it is left alone.
func TestEmpty(t *testing.T) {
	faulty := fault.New(newMemory(t, 4096))
	d := wrap(t, faulty, 1)
	touched := faulty.Add(fault.Rule{})
	at := block.Range{Start: 100}
	err := errors.Join(d.WriteAt(nil, 100, block.FUA), d.Zero(at, block.FUA), d.Discard(at, 0), d.ReadAt(nil, 100))
	if err != nil || touched.Hits() != 0 {
		t.Errorf("%v, %d requests below", err, touched.Hits())
	}
}

// TestDiscardIsHandedOn discards what touches five large blocks.
func TestDiscardIsHandedOn(t *testing.T) {
	below := newMemory(t, 4096)
	d := wrap(t, below, 512)
	if err := d.WriteAt(bytes.Repeat([]byte{1}, 6*4096), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(block.Range{Start: 512, LenBytes: 4 * 4096}, 0); err != nil {
		t.Fatal(err)
	}
	if n := below.AllocatedBytes(); n != 3*4096 {
		t.Errorf("%d bytes are allocated", n)
	}
}

// TestErrors has the block below fail when it is read, and when it is written.
func TestErrors(t *testing.T) {
	faulty := fault.New(newMemory(t, 4096))
	d := wrap(t, faulty, 1)
	ours := bytes.Repeat([]byte{1}, 4098)
	for _, ops := range []fault.Ops{fault.Read, fault.Write} {
		f := faulty.Add(fault.Rule{Ops: ops, Range: block.Range{LenBytes: 4096}, Action: fault.Action{Err: syscall.EIO}})
		if err := d.WriteAt(ours, 4095, 0); !errors.Is(err, syscall.EIO) {
			t.Errorf("write across a bad block: %v", err)
		}
		if err := d.Zero(block.Range{Start: 4095, LenBytes: 2}, block.FUA); !errors.Is(err, syscall.EIO) {
			t.Errorf("zero across a bad block: %v", err)
		}
		f.Remove()
	}
	if err := d.WriteAt(ours, 4095, 0); err != nil {
		t.Errorf("after the errors: %v", err)
	}
	got := make([]byte, len(ours))
	if err := d.ReadAt(got, 4095); err != nil || !bytes.Equal(got, ours) {
		t.Errorf("read something else, %v", err)
	}
}
