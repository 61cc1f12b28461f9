package logvolume

import (
	"testing"

	"torpor/block"
	"torpor/block/trace"
)

// TestCheckpointOfManySegments writes a checkpoint whose leaves fill many more
// segments than those that were reserved when it began; then they are written to,
// too, so that segments are cleaned and used again while a checkpoint is written.
func TestCheckpointOfManySegments(t *testing.T) {
	const leaves, leafBytes = 700, 512 * 4096
	disks := unclosable(memoryDisks(2, 120))
	l, v := newTestLog(t, disks, testSpec(1, 1), leaves*leafBytes)
	p := make([]byte, 4096)
	write := func(round int) {
		for leaf := range leaves {
			content(p, round, leaf)
			must(t, v.WriteAt(p, block.Offset(leaf)*leafBytes, 0))
		}
	}
	check := func(round int) {
		t.Helper()
		want := make([]byte, 4096)
		for leaf := range leaves {
			content(want, round, leaf)
			must(t, v.ReadAt(p, block.Offset(leaf)*leafBytes))
			if string(p) != string(want) {
				t.Fatalf("leaf %d: wrong content", leaf)
			}
		}
		mustCheck(t, l)
	}
	for round := 1; round < 12; round++ {
		write(round)
		must(t, l.Close())
		recorded, recording := traced(t, disks)
		l = mustOpen(t, recorded, quietly)
		v = openVolume(t, l, "v")
		check(round)
		must(t, l.Close())
		cutAndCheck(t, recording, round, leaves, leafBytes)
		l = mustOpen(t, disks, quietly)
		v = openVolume(t, l, "v")
	}
	must(t, l.Close())
}

// cutAndCheck cuts the power somewhere in a recovery and the checkpoints that
// follow, while nothing is written.
func cutAndCheck(t *testing.T, recording *trace.Recording, round, leaves, leafBytes int) {
	t.Helper()
	rnd := testSeed(t)
	l := mustOpen(t, cut(t, recording, rnd.IntN(recording.Points()+1), rnd), quietly)
	v := openVolume(t, l, "v")
	p, want := make([]byte, 4096), make([]byte, 4096)
	for leaf := range leaves {
		content(want, round, leaf)
		must(t, v.ReadAt(p, block.Offset(leaf*leafBytes)))
		if string(p) != string(want) {
			t.Fatalf("leaf %d: wrong content after a power cut", leaf)
		}
	}
	mustCheck(t, l)
	must(t, l.Close())
}
