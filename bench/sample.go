package bench

import (
	"slices"
	"time"
)

// Sample is a set of durations of one thing.
type Sample []time.Duration

// Percentile returns the smallest duration that at least p per cent of the
// sample do not exceed; 0 for an empty sample.
func (s Sample) Percentile(p int) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

// Summary is what is reported of a sample.
type Summary struct {
	N   int           `json:"n"`
	Min time.Duration `json:"min_ns"`
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
}

// Summary condenses the sample.
func (s Sample) Summary() Summary {
	if len(s) == 0 {
		return Summary{}
	}
	return Summary{N: len(s), Min: slices.Min(s), P50: s.Percentile(50), P99: s.Percentile(99)}
}
