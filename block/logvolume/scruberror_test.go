package logvolume

import (
	"syscall"
	"testing"

	"torpor/block"
	"torpor/block/fault"
)

// TestScrubRepairsWhatCanNotBeRead has a disk that returns errors for what it held,
// until it is written anew.
func TestScrubRepairsWhatCanNotBeRead(t *testing.T) {
	disks := unclosable(memoryDisks(3, 40))
	bad := fault.New(disks[1].Device)
	disks[1].Device = bad
	l, v := newTestLog(t, disks, testSpec(2, 1), 8<<20)
	p := make([]byte, 4<<20)
	content(p, 1, 1)
	must(t, v.WriteAt(p, 0, block.FUA))
	unreadable := bad.Add(fault.Rule{Ops: fault.Read, Action: fault.Action{Err: syscall.EIO}})
	report, err := l.Scrub(t.Context(), false, nil)
	must(t, err)
	if report.WrongBlocks == 0 {
		t.Errorf("a scrub of a disk that can not be read found nothing: %+v", report)
	}
	report, err = l.Scrub(t.Context(), true, nil)
	must(t, err)
	if report.RepairedBlocks != report.WrongBlocks || len(report.Lost) > 0 {
		t.Errorf("repaired %+v", report)
	}
	unreadable.Remove()
	mustCheck(t, l)
	must(t, l.Close())
}
