package logvolume

import (
	"testing"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// TestMapBytes changes a block of each of more leaves than the map may have in
// memory, which therefore have to be written and read again while changes go on.
func TestMapBytes(t *testing.T) {
	watchdog(t, 2*time.Minute)
	const leaves = 12_000
	o := quietly
	o.MapBytes = 16 << 20 // the least there is
	disks := memoryDisks(3, 700)
	must(t, Create(disks, testSpec(2, 1)))
	l := mustOpen(t, disks, o)
	must(t, l.CreateVolume("v", leaves*format.LeafEntries*format.BlockBytes))
	v := openVolume(t, l, "v")
	b := make([]byte, format.BlockBytes)
	var most int64
	for i := range 2 * leaves {
		b[0], b[1] = byte(i), byte(i>>8)
		must(t, v.WriteAt(b, place(i), 0))
		most = max(most, l.Stats().MapBytes)
	}
	// Slabs of 64 leaves are given back when all of them are free. Without waiting
	// for checkpoints it was 48 MiB.
	if slack := int64(6 << 20); most > l.options.MapBytes+slack {
		t.Errorf("map took %d KiB", most>>10)
	}
	t.Logf("map took up to %d KiB", most>>10)
	for i := leaves; i < 2*leaves; i += 7 {
		must(t, v.ReadAt(b, place(i)))
		if b[0] != byte(i) || b[1] != byte(i>>8) {
			t.Fatalf("block %d is %d %d", i, b[0], b[1])
		}
	}
	mustCheck(t, l)
	must(t, l.Close())
}

// place is in another leaf for each of 12,000, and in the same again after those.
func place(i int) block.Offset {
	return block.Offset(i*7919%12_000) * format.LeafEntries * format.BlockBytes
}
