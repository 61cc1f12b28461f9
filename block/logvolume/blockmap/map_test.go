package blockmap

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var seedFlag = flag.Uint64("seed", 0, "of the model tests; 0: random")

func TestModel(t *testing.T) {
	rounds, steps := 8, 5000
	if testing.Short() {
		rounds = 3
	}
	total := world{}
	for range rounds {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Logf("seed %d", seed)
		w := newWorld(t, seed)
		w.run(steps)
		total.loads += w.loads
		total.recoveries += w.recoveries
		total.abandoned += w.abandoned
		total.nextLayer += w.nextLayer
		if *seedFlag != 0 {
			break
		}
	}
	t.Logf("%d leaves loaded, %d checkpoints recovered, %d abandoned, %d layers", total.loads, total.recoveries, total.abandoned, total.nextLayer)
	if total.loads == 0 || total.recoveries == 0 || total.abandoned == 0 {
		t.Error("nothing was tested")
	}
}

// run takes random steps. Each has a weight.
func (w *world) run(steps int) {
	actions := []struct {
		weight int
		do     func()
	}{
		{30, w.set}, {6, w.setRange}, {6, w.setHoles}, {20, w.relocate},
		{1, w.addOrRemove}, {6, w.removeStep}, {6, w.mergeStep}, {1, w.resize},
		{6, w.markDirty}, {2, w.limit}, {20, w.checkpointStep},
	}
	sum := 0
	for _, a := range actions {
		sum += a.weight
	}
	for step := range steps {
		n := w.rand.IntN(sum)
		for _, a := range actions {
			if n -= a.weight; n < 0 {
				a.do()
				break
			}
		}
		if step%100 == 0 {
			w.checkStructure()
		}
		if step%500 == 499 {
			w.check()
		}
	}
	for w.checkpoint != nil {
		w.checkpointStep()
	}
	w.check()
	w.checkStructure()
}
