package logvolume

import (
	"fmt"
	"testing"
	"time"
)

// TestAddDiskWhenFull adds disks to a log that is full: each gives some space,
// what is acknowledged has a place, and overwriting, which has segments be made
// again where there is room, lets it grow to what all disks have.
func TestAddDiskWhenFull(t *testing.T) {
	for _, layout := range [][2]int{{1, 1}, {4, 2}} {
		t.Run(fmt.Sprintf("%d+%d", layout[0], layout[1]), func(t *testing.T) {
			watchdog(t, time.Minute)
			k, m := layout[0], layout[1]
			world := &model{testSeed(t), make([]byte, 64<<20)}
			disks := unclosable(memoryDisks(k+m+1, 32+40/k))
			l, v := newTestLog(t, disks[:k+m], testSpec(k, m), int64(len(world.data)))
			full := world.fillUp(t, v, 0)
			before := l.Stats().CapacityBytes
			must(t, l.AddDisk(disks[k+m]))
			if now := l.Stats().CapacityBytes; now <= before {
				t.Errorf("another disk changes capacity from %d to %d", before, now)
			}
			for range 3 {
				full = world.fillUp(t, v, full)
				for range 200 {
					world.overwrite(t, v, full, 60)
				}
				must(t, v.Flush())
				world.compare(t, v)
				t.Logf("capacity %d", l.Stats().CapacityBytes)
			}
			grown, most := l.Stats().CapacityBytes, before*int64(k+m+1)/int64(k+m)
			if grown < before+(most-before)/2 {
				t.Errorf("capacity was %d and is %d, of %d", before, grown, most)
			}
			mustCheck(t, l)
			must(t, l.Close())
			l = mustOpen(t, disks, quietly)
			world.compare(t, openVolume(t, l, "v"))
			must(t, l.Close())
		})
	}
}

// TestMoreDisksThanShards uses all disks of a log that has more than a segment
// has shards.
func TestMoreDisksThanShards(t *testing.T) {
	l, _ := newTestLog(t, memoryDisks(2, 60), testSpec(1, 1), 1<<20)
	two := l.Stats().CapacityBytes
	must(t, l.Close())
	l, _ = newTestLog(t, memoryDisks(4, 60), testSpec(1, 1), 1<<20)
	if four := l.Stats().CapacityBytes; four < 2*two {
		t.Errorf("four disks have %d bytes, two have %d", four, two)
	}
	must(t, l.Close())
}
