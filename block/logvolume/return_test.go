package logvolume

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/fault"
)

// TestDiskReturnsAfterCrash has a disk miss rows that no checkpoint knows of, the
// power cut, and the disk put in its own place: what it missed is filled in.
func TestDiskReturnsAfterCrash(t *testing.T) {
	watchdog(t, time.Minute)
	rnd := testSeed(t)
	world := &model{rnd, make([]byte, 8<<20)}
	f := faultyDisks(memoryDisks(6, 40))
	l, v := newTestLog(t, f.disks, testSpec(4, 2), int64(len(world.data)))
	for range 20 {
		world.step(t, v)
	}
	broken := f.faults[1].Add(fault.Rule{Ops: fault.Write, Action: fault.Action{Err: syscall.EIO}})
	for range 40 {
		world.step(t, v)
	}
	must(t, v.Flush())
	broken.Remove()
	crashed := crash(t, l, f.disks)
	must(t, l.Close())
	l = mustOpen(t, crashed, Options{})
	must(t, l.ReplaceDisk(t.Context(), "m1", crashed[1], nil))
	mustCheck(t, l)
	must(t, l.Close())
	for i := range crashed {
		left := append(append([]Disk(nil), crashed[:i]...), crashed[i+1:]...)
		l = mustOpen(t, copyDisks(t, left[:4]), Options{})
		world.compare(t, openVolume(t, l, "v"))
		must(t, l.Close())
	}
}

// TestJournalIsWhole loses a copy of a journal record, replaces the disk, and then
// has as many others be missing as may be.
func TestJournalIsWhole(t *testing.T) {
	for lost := range 3 {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			f := faultyDisks(memoryDisks(6, 40))
			l, v := newTestLog(t, f.disks, testSpec(4, 2), 1<<20)
			p := make([]byte, 4096)
			fill(rand.New(rand.NewPCG(1, 1)), p)
			must(t, v.WriteAt(p, 4096, block.FUA))
			holders := 0
			for i, d := range l.disks {
				if len(d.journal.records) == 0 {
					continue
				}
				if holders == lost {
					f.faults[i].Add(fault.Rule{Action: fault.Action{Err: syscall.EIO}})
					must(t, l.ReplaceDisk(t.Context(), d.name, Disk{"new", unclosed{memoryDisks(1, 40)[0].Device.(block.VectorDevice)}}, nil))
					f.disks[i] = Disk{"new", l.disks[i].device}
					break
				}
				holders++
			}
			var newer []Disk // without those that had the others' copies
			for i, d := range l.disks {
				if len(d.journal.records) == 0 && i < 6 {
					newer = append(newer, f.disks[i])
				}
			}
			for len(newer) < 4 {
				t.Fatalf("%d disks have no record", len(newer))
			}
			crashed := crash(t, l, newer[:4])
			must(t, l.Close())
			l = mustOpen(t, crashed, Options{})
			got := make([]byte, 4096)
			must(t, openVolume(t, l, "v").ReadAt(got, 4096))
			if string(got) != string(p) {
				t.Error("what was flushed is lost")
			}
			must(t, l.Close())
		})
	}
}

// TestUnreadableIsNotEmpty offers disks that may hold a log, which nobody can tell.
func TestUnreadableIsNotEmpty(t *testing.T) {
	f := faultyDisks(memoryDisks(4, 34))
	l, _ := newTestLog(t, f.disks[:3], testSpec(2, 1), 1<<20)
	f.faults[3].Add(fault.Rule{Ops: fault.Read, Count: 1, Action: fault.Action{Err: syscall.EIO}})
	if err := l.ReplaceDisk(t.Context(), "m1", f.disks[3], nil); block.Errno(err) != syscall.EIO {
		t.Errorf("replace: %v", err)
	}
	f.faults[3].Add(fault.Rule{Ops: fault.Read, Skip: 1, Action: fault.Action{Err: syscall.EIO}})
	if err := l.AddDisk(f.disks[3]); block.Errno(err) != syscall.EIO {
		t.Errorf("add: %v", err)
	}
	if err := Create(f.disks[3:], testSpec(1, 0)); block.Errno(err) != syscall.EIO {
		t.Errorf("create: %v", err)
	}
	must(t, l.Close())
}
