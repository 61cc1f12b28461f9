package logvolume

import (
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/fault"
)

// steadfast is a device that notices when memory changes that is being written.
type steadfast struct {
	block.VectorDevice
	changed *atomic.Int64
}

func (d steadfast) WriteVectorAt(p [][]byte, off block.Offset, flags block.Flags) error {
	before := sumOf(p)
	err := d.VectorDevice.WriteVectorAt(p, off, flags)
	if sumOf(p) != before {
		d.changed.Add(1)
	}
	return err
}

func (d steadfast) ReadAt(p []byte, off block.Offset) error { return d.ReadVectorAt([][]byte{p}, off) }

// ReadVectorAt hands out memory of its own: what is read late must go nowhere.
func (d steadfast) ReadVectorAt(p [][]byte, off block.Offset) error {
	before := sumOf(p)
	own := make([][]byte, len(p))
	for i := range p {
		own[i] = make([]byte, len(p[i]))
	}
	err := d.VectorDevice.ReadVectorAt(own, off)
	if sumOf(p) != before {
		d.changed.Add(1)
	}
	for i := range p {
		copy(p[i], own[i])
	}
	return err
}

func sumOf(p [][]byte) (sum uint32) {
	for _, b := range p {
		sum = crc32.Update(sum, castagnoli, b)
	}
	return sum
}

// steadfastDisks are faulty disks that count changes of memory in use.
func steadfastDisks(disks []Disk) (*faulty, *atomic.Int64) {
	f, changed := faultyDisks(disks), new(atomic.Int64)
	for i, d := range f.disks {
		f.disks[i].Device = steadfast{d.Device.(block.VectorDevice), changed}
	}
	return f, changed
}

// shortly is long enough for a busy machine, as disks that do not hang must not be
// taken for some that do.
const shortly = 1500 * time.Millisecond

// TestHangingDisks has requests hang on up to m disks while a model runs, lets them
// go on, and puts the disks in their own places.
func TestHangingDisks(t *testing.T) {
	t.Parallel()
	for _, ops := range []fault.Ops{fault.Read, fault.Write, fault.Flush, fault.Change | fault.Flush, fault.All} {
		for _, layout := range [][2]int{{4, 2}, {1, 1}} {
			t.Run(fmt.Sprintf("%d+%d %b", layout[0], layout[1], ops), func(t *testing.T) {
				t.Parallel()
				hangingDisks(t, layout[0], layout[1], ops)
			})
		}
	}
}

func hangingDisks(t *testing.T, k, m int, ops fault.Ops) {
	watchdog(t, 2*time.Minute)
	rnd := testSeed(t)
	world := &model{rnd, make([]byte, 4<<20)}
	f, changed := steadfastDisks(memoryDisks(k+m, 24+40/k))
	must(t, Create(f.disks, testSpec(k, m)))
	o := quietly
	o.DiskTimeout, o.DirtyBytes, o.CheckpointBytes = shortly, 2<<20, 4<<20
	l := mustOpen(t, f.disks, o)
	must(t, l.CreateVolume("v", int64(len(world.data))))
	v := openVolume(t, l, "v")
	for range 60 {
		world.step(t, v)
	}
	bad := rnd.Perm(k + m)[:1+rnd.IntN(m)]
	for _, i := range bad {
		f.faults[i].Add(fault.Rule{Ops: ops, Skip: rnd.IntN(10), Action: fault.Action{Hang: true}})
	}
	for range 200 {
		world.step(t, v)
	}
	world.compare(t, v)
	must(t, v.Flush())
	if ops != fault.Read {
		for _, i := range bad {
			s := l.Stats().Disks[i]
			if s.State != "out" || s.Reason == "" {
				t.Errorf("disk %s is %s: %q", s.Name, s.State, s.Reason)
			}
			if err := l.ReplaceDisk(t.Context(), s.Name, f.disks[i], nil); !errors.Is(err, ErrInUse) && !errors.Is(err, errLate) {
				t.Errorf("a disk with requests under way takes its own place: %v", err)
			}
		}
	}
	f.heal()
	for i := range f.disks {
		for l.disks[i].pending.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	for range 100 {
		world.step(t, v)
	}
	repair(t, l, f)
	world.compare(t, v)
	must(t, l.Close())
	if n := changed.Load(); n > 0 {
		t.Errorf("memory was used %d times that a disk had", n)
	}
	l = mustOpen(t, without(rnd, f.disks, m), quietly)
	world.compare(t, openVolume(t, l, "v"))
	must(t, l.Close())
}

// TestHangAtOpen opens a log with disks that hang, at once or later on.
func TestHangAtOpen(t *testing.T) {
	t.Parallel()
	for _, skip := range []int{0, 2, 3, 8} {
		t.Run(fmt.Sprint(skip), func(t *testing.T) {
			t.Parallel()
			watchdog(t, 2*time.Minute)
			world := &model{testSeed(t), make([]byte, 4<<20)}
			f := faultyDisks(memoryDisks(6, 34))
			l, v := newTestLog(t, f.disks, testSpec(4, 2), int64(len(world.data)))
			for range 60 {
				world.step(t, v)
			}
			must(t, v.Flush())
			crashed := crash(t, l, f.disks)
			must(t, l.Close())
			f = faultyDisks(crashed)
			for _, i := range []int{1, 4} {
				f.faults[i].Add(fault.Rule{Skip: skip, Action: fault.Action{Hang: true}})
			}
			o := quietly
			o.DiskTimeout = shortly
			l = mustOpen(t, f.disks, o)
			world.compare(t, openVolume(t, l, "v"))
			out := 0
			for _, s := range l.Stats().Disks {
				if s.State == "out" {
					out++
				}
			}
			if out != 2 {
				t.Errorf("%d disks are out", out)
			}
			must(t, l.Close())
			f.heal()
		})
	}
}

// TestTooManyHangingDisks gives an error for writes, and goes on when reads do.
func TestTooManyHangingDisks(t *testing.T) {
	t.Parallel()
	watchdog(t, 2*time.Minute)
	world := &model{testSeed(t), make([]byte, 2<<20)}
	f := faultyDisks(memoryDisks(3, 34))
	must(t, Create(f.disks, testSpec(2, 1)))
	o := quietly
	o.DiskTimeout = shortly
	l := mustOpen(t, f.disks, o)
	must(t, l.CreateVolume("v", int64(len(world.data))))
	v := openVolume(t, l, "v")
	world.fillAll(t, v)
	for _, d := range f.faults[:2] {
		d.Add(fault.Rule{Ops: fault.Read, Action: fault.Action{Hang: true}})
	}
	if err := v.ReadAt(make([]byte, 1<<20), 0); block.Errno(err) != syscall.EIO {
		t.Errorf("read: %v", err)
	}
	f.heal()
	world.compare(t, v)
	for _, d := range f.faults[1:] {
		d.Add(fault.Rule{Ops: fault.Flush | fault.Write, Action: fault.Action{Hang: true}})
	}
	must(t, v.WriteAt(make([]byte, 4096), 0, 0))
	if err := v.Flush(); err == nil {
		t.Error("flushed to too few disks")
	}
	if s := l.Stats(); s.State != StateFailed {
		t.Errorf("state %s: %+v", s.State, s.Disks)
	}
	f.heal()
	_ = l.Close()
}

// TestLateReads reads from a disk that is slow, but not too slow.
func TestLateReads(t *testing.T) {
	watchdog(t, 2*time.Minute)
	world := &model{testSeed(t), make([]byte, 4<<20)}
	f, changed := steadfastDisks(memoryDisks(3, 34))
	l, v := newTestLog(t, f.disks, testSpec(2, 1), int64(len(world.data)))
	world.fillAll(t, v)
	slow := f.faults[0].Add(fault.Rule{Ops: fault.Read, Rate: 0.5, Action: fault.Action{Delay: 60 * time.Millisecond, Jitter: 60 * time.Millisecond}})
	for range 60 {
		world.step(t, v)
	}
	world.compare(t, v)
	if slow.Hits() == 0 {
		t.Error("no read was slow")
	}
	if s := l.Stats(); s.State != StateOK {
		t.Errorf("state %s: %+v", s.State, s.Disks)
	}
	f.heal()
	mustCheck(t, l)
	must(t, l.Close())
	if n := changed.Load(); n > 0 {
		t.Errorf("memory was used %d times that a disk had", n)
	}
}
