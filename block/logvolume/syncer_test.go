package logvolume

import (
	"testing"
	"time"
)

// TestSyncer writes and never flushes: what was written becomes durable by itself,
// but for the last of it, and a crash then keeps it.
func TestSyncer(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 4<<20)}
	disks := memoryDisks(6, 40)
	must(t, Create(disks, testSpec(4, 2)))
	o := quietly
	o.UnsyncedBytes = 1 << 20
	l := mustOpen(t, disks, o)
	must(t, l.CreateVolume("v", int64(len(world.data))))
	v := openVolume(t, l, "v")
	before := l.nextRow
	world.fillAll(t, v)
	for durable := before; durable < before+2; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		durable = l.durableRow
		l.mu.Unlock()
	}
	crashed := crash(t, l, disks)
	must(t, l.Close())
	l = mustOpen(t, crashed, quietly)
	if n := l.recovered.Rows; n == 0 {
		t.Error("recovery replayed no row")
	}
	must(t, l.Close())
}
