package logvolume

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/fault"
)

// TestReplaceNeededDisk loses two disks of 4+2 and replaces a third, which would
// be the end of all data: it is refused, and nothing has changed. The lost ones
// can be replaced, and are closed then.
func TestReplaceNeededDisk(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 8<<20)}
	f := faultyDisks(memoryDisks(6, 40))
	l, v := newTestLog(t, f.disks, testSpec(4, 2), int64(len(world.data)))
	for range 40 {
		world.step(t, v)
	}
	for _, i := range []int{1, 4} {
		f.faults[i].Add(fault.Rule{Ops: fault.Write | fault.Flush, Action: fault.Action{Err: syscall.EIO}})
	}
	for range 40 {
		world.step(t, v)
	}
	must(t, v.Flush())
	spare := memoryDisks(2, 40)
	spare[0].Name, spare[1].Name = "s0", "s1"
	if err := l.ReplaceDisk(t.Context(), "m2", spare[0], nil); !errors.Is(err, ErrNeeded) {
		t.Fatalf("replaced a disk that is needed: %v", err)
	}
	world.compare(t, v)
	must(t, l.ReplaceDisk(t.Context(), "m1", spare[0], nil))
	must(t, l.ReplaceDisk(t.Context(), "m4", spare[1], nil))
	mustCheck(t, l)
	world.compare(t, v)
	if s := l.Stats(); s.State != "ok" || len(l.former) > 0 {
		t.Errorf("log is %s, %d disks that were replaced are open", s.State, len(l.former))
	}
	must(t, l.Close())
}

// TestReleaseDisk has a disk be out, closed, and back in its own place.
func TestReleaseDisk(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 4<<20)}
	f := faultyDisks(memoryDisks(3, 40))
	released := f.disks[1].Device
	f.disks[1].Device = f.faults[1] // which is closed
	l, v := newTestLog(t, f.disks, testSpec(2, 1), int64(len(world.data)))
	if err := l.ReleaseDisk("m1"); !errors.Is(err, ErrInUse) {
		t.Errorf("released a disk that is up: %v", err)
	}
	if err := l.ReleaseDisk("none"); !errors.Is(err, ErrNoDisk) {
		t.Errorf("released a disk that there is not: %v", err)
	}
	f.faults[1].Add(fault.Rule{Ops: fault.Write, Action: fault.Action{Err: syscall.EIO}})
	for range 40 {
		world.step(t, v)
	}
	must(t, v.Flush())
	must(t, l.ReleaseDisk("m1"))
	if err := released.Flush(); !errors.Is(err, block.ErrClosed) {
		t.Errorf("released disk is open: %v", err)
	}
	world.compare(t, v)
	again := memoryDisks(1, 40)[0]
	must(t, l.ReplaceDisk(t.Context(), "m1", again, nil))
	mustCheck(t, l)
	world.compare(t, v)
	must(t, l.Close())
}

// TestReplaceOnlyDisk has no parity: what is on the disk is nowhere else.
func TestReplaceOnlyDisk(t *testing.T) {
	l, v := newTestLog(t, memoryDisks(1, 40), testSpec(1, 0), 1<<20)
	must(t, v.WriteAt(make([]byte, 4096), 0, 0))
	spare := memoryDisks(1, 40)
	if err := l.ReplaceDisk(t.Context(), "m0", spare[0], nil); !errors.Is(err, ErrNeeded) {
		t.Errorf("replaced the only disk: %v", err)
	}
	must(t, v.Flush())
	must(t, l.Close())
}

// broken is a device that can not be closed without an error.
type broken struct{ block.Device }

func (b broken) Close() error { return errors.Join(b.Device.Close(), syscall.EIO) }

// TestCloseWithoutDisk closes a log while a disk is out that can do nothing more:
// that is no error of the log. With a disk that is up it is one.
func TestCloseWithoutDisk(t *testing.T) {
	for _, out := range []bool{true, false} {
		f := faultyDisks(memoryDisks(3, 40))
		f.disks[1].Device = broken{f.disks[1].Device}
		l, v := newTestLog(t, f.disks, testSpec(2, 1), 1<<20)
		if out {
			f.faults[1].Add(fault.Rule{Action: fault.Action{Err: syscall.EIO}})
		}
		must(t, v.WriteAt(make([]byte, 4096), 0, 0))
		must(t, v.Flush())
		if err := l.Close(); out != (err == nil) {
			t.Errorf("disk is out: %v; close: %v", out, err)
		}
	}
}
