package logvolume

import (
	"testing"
	"time"

	"torpor/block"
	"torpor/block/fault"
)

// TestStartReadDoesNotWait begins a read for which the map has to be read first,
// from disks that hang: StartRead returns, and the read ends when the disks go on.
func TestStartReadDoesNotWait(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 2<<20)}
	f := faultyDisks(memoryDisks(3, 34))
	disks := unclosable(f.disks)
	l, v := newTestLog(t, disks, testSpec(2, 1), int64(len(world.data)))
	world.fillAll(t, v)
	must(t, l.Close())
	l = mustOpen(t, disks, quietly)
	v = openVolume(t, l, "v")
	for _, d := range f.faults {
		d.Add(fault.Rule{Ops: fault.Read, Action: fault.Action{Hang: true}})
	}
	p, result := make([]byte, 8192), make(chan error, 1)
	v.StartRead(p, 4096, func(err error) { result <- err })
	select {
	case err := <-result:
		t.Fatalf("read from disks that hang: %v", err)
	default:
	}
	f.heal()
	must(t, <-result)
	if string(p) != string(world.data[4096:][:len(p)]) {
		t.Error("read something else")
	}
	must(t, l.Close())
}

// TestStartWriteBeyondBudget begins more writes than memory has room for, at once.
func TestStartWriteBeyondBudget(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 4<<20)}
	disks := memoryDisks(3, 60)
	must(t, Create(disks, testSpec(2, 1)))
	o := quietly
	o.DirtyBytes = 64 << 10
	l := mustOpen(t, disks, o)
	must(t, l.CreateVolume("v", int64(len(world.data))))
	v := openVolume(t, l, "v")
	fill(world.rnd, world.data)
	const each = 8192
	results := make(chan error, len(world.data)/each)
	for off := 0; off < len(world.data); off += each {
		v.StartWrite([][]byte{world.data[off : off+each]}, block.Offset(off), 0, func(err error) { results <- err })
	}
	for range cap(results) {
		must(t, <-results)
	}
	world.compare(t, v)
	must(t, l.Close())
}
