package bench

import (
	"math"
	"testing"
)

// TestPlainLogMeetsTheBound compares the simulation with the formula.
func TestPlainLogMeetsTheBound(t *testing.T) {
	for _, full := range []int{50, 70, 80} {
		const segments, perSegment = 400, 64
		got := oneStream(segments, perSegment, segments*perSegment*full/100, 4, skews[0])
		want := uniformBound(float64(full) / 100)
		if math.Abs(got/want-1) > 0.05 {
			t.Errorf("%d %% full: %.3f, the bound is %.3f", full, got, want)
		}
	}
	if bound := uniformBound(0.9); math.Abs(bound-5.179) > 0.001 {
		t.Errorf("bound at 90 %%: %.4f", bound)
	}
}
