package clean_test

import (
	"fmt"
	"math"
	"testing"

	"torpor/block/logvolume/clean"
)

// large is where the streams' own segments do not count, medium where they do.
func large(full float64) shape  { return shape{segments: 5000, blocks: 128, full: full} }
func medium(full float64) shape { return shape{segments: 1000, blocks: 128, full: full} }

var (
	chosen = design{name: "chosen"}
	// unsorted is what logs do that know of no kinds of block.
	unsorted = design{name: "one stream, most dead", streams: 1, score: mostDead, atOnce: true}
)

func mostDead(s *clean.Segment, _ clean.Time) float64 { return float64(s.Blocks - s.Live) }

// bound is the amplification of uniform random writes where users' blocks are
// this part of the room and segments are cleaned in the order in which they were
// written: 1/(1-u) with full = (u-1)/ln(u). Segments with many blocks lose theirs
// at the same rate, so the order is also that of most dead ones.
func bound(full float64) float64 {
	low, high := 0.0, full
	for range 60 {
		if u := (low + high) / 2; (u-1)/math.Log(u) < full {
			low = u
		} else {
			high = u
		}
	}
	return 1 / (1 - low)
}

func TestBoundIsAsPublished(t *testing.T) {
	for full, want := range map[float64]float64{0.7: 1.876, 0.8: 2.693, 0.9: 5.179} {
		if got := bound(full); math.Abs(got-want) > 0.001 {
			t.Errorf("bound(%v) = %.3f, want %.3f", full, got, want)
		}
	}
}

func TestUniformWritesCostTheBound(t *testing.T) {
	for _, sh := range []shape{large(0.7), large(0.9), medium(0.7), medium(0.8), medium(0.9)} {
		t.Run(fmt.Sprintf("%d segments %.0f%%", sh.segments, 100*sh.full), func(t *testing.T) {
			t.Parallel()
			r := run(chosen, sh, uniform, 3, 1)
			r.report(t, 1.10*bound(sh.full))
			if most := 1.01 * bound(r.room); r.amplification > most {
				t.Errorf("amplification %.3f, want at most %.3f with %.1f %% of the room", r.amplification, most, 100*r.room)
			}
		})
	}
}

// report fails if a result is worse than it should be, or users had to wait for
// more than one change of a thousand.
func (r result) report(t *testing.T, most float64) {
	t.Helper()
	t.Logf("amplification %.3f, at most %.3f; %.1f %% of the room", r.amplification, most, 100*r.room)
	if r.amplification > most {
		t.Errorf("amplification %.3f, want at most %.3f", r.amplification, most)
	}
	if r.stalls*1000 > r.changes {
		t.Errorf("%d stalls in %d changes", r.stalls, r.changes)
	}
}

func TestSkewedWritesCostThreeFifthsOfUnsorted(t *testing.T) {
	for _, full := range []float64{0.7, 0.8, 0.9} {
		t.Run(fmt.Sprintf("%.0f%%", 100*full), func(t *testing.T) {
			t.Parallel()
			against := run(unsorted, medium(full), skewed(0.9, 0.1), 10, 4)
			run(chosen, medium(full), skewed(0.9, 0.1), 14, 4).report(t, 0.6*against.amplification)
		})
	}
}

// pattern is a load and the most that it may cost at 70, 80 and 90 %, which is
// 3 % more than it does.
type pattern struct {
	name string
	load load
	most [3]float64
}

var patterns = []pattern{
	{"sequential", sequential, [3]float64{1.001, 1.001, 1.001}},
	{"99/1", skewed(0.99, 0.01), [3]float64{1.03, 1.03, 1.16}},
	{"zipf", zipf, [3]float64{1.60, 2.06, 3.51}},
	{"moving", moving, [3]float64{1.67, 2.08, 4.00}},
	{"jumping", jumping, [3]float64{1.38, 1.66, 2.82}},
	{"sweeping", sweeping, [3]float64{1.08, 2.20, 4.49}},
	{"halves", halves, [3]float64{1.23, 2.16, 4.32}},
	{"journaled", journaled, [3]float64{1.42, 1.84, 3.21}},
}

var fulls = [3]float64{0.7, 0.8, 0.9}

func TestPatterns(t *testing.T) {
	for _, p := range patterns {
		for i, full := range fulls {
			t.Run(fmt.Sprintf("%s %.0f%%", p.name, 100*full), func(t *testing.T) {
				t.Parallel()
				run(chosen, medium(full), p.load, 8, 4).report(t, p.most[i])
			})
		}
	}
}

func TestSmallLogs(t *testing.T) {
	for _, c := range []struct {
		shape
		uniform, skewed float64
	}{
		{shape{segments: 64, blocks: 512, full: 0.6}, 2.01, 1.91},
		{shape{segments: 64, blocks: 512, full: 0.7}, 3.25, 2.74},
		{shape{segments: 100, blocks: 512, full: 0.7}, 2.75, 1.69},
		{shape{segments: 200, blocks: 512, full: 0.7}, 2.24, 1.50},
		{shape{segments: 200, blocks: 512, full: 0.8}, 3.68, 2.20},
	} {
		t.Run(fmt.Sprintf("%d segments %.0f%%", c.segments, 100*c.full), func(t *testing.T) {
			t.Parallel()
			run(chosen, c.shape, uniform, 5, 5).reportSmall(t, c.uniform)
			run(chosen, c.shape, skewed(0.9, 0.1), 10, 5).reportSmall(t, c.skewed)
		})
	}
}

// reportSmall is report for logs whose streams sometimes need their next
// segments all at once: in one of 50 changes users wait.
func (r result) reportSmall(t *testing.T, most float64) {
	t.Helper()
	r.stalls /= 20
	r.report(t, most)
}

// Segments may be cleaned only if they were sealed before the newest checkpoint.
// That may be as much as 5 % of the log ago.
func TestCheckpointsMayBeRare(t *testing.T) {
	for name, l := range map[string]load{"90/10": skewed(0.9, 0.1), "99/1": skewed(0.99, 0.01)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			often, rare := medium(0.8), medium(0.8)
			rare.checkpoint = rare.segments * rare.blocks / 20
			run(chosen, rare, l, 8, 4).report(t, 1.01*run(chosen, often, l, 8, 4).amplification)
		})
	}
}
