package clean_test

import (
	"fmt"
	"math"
	"testing"

	"torpor/block/logvolume/clean"
)

// designs are what was tried, for docs/cleaning.md.
var designs = []design{
	chosen,
	unsorted,
	{name: "one stream, cost and benefit", streams: 1, score: costBenefit},
	{name: "one stream, chosen score", streams: 1},
	{name: "two streams, most dead", streams: 2, score: mostDead, route: toHot},
	{name: "two streams, cost and benefit", streams: 2, score: costBenefit, route: toHot},
	{name: "two streams, chosen score", streams: 2, route: toHot},
	{name: "two streams, users' sorted", streams: 2},
	{name: "three streams, users' in one", streams: 3, route: toHot},
	{name: "three streams, most dead", streams: 3, score: mostDead},
	{name: "three streams, cost and benefit", streams: 3, score: costBenefit},
	{name: "three streams, same since sealed", streams: 3, score: costBenefitSealed},
	{name: "three streams, exact score", streams: 3, score: exact},
	{name: "three streams, users' in three", streams: 3, route: toThree},
	{name: "four streams, chosen rules", streams: 4},
	{name: "border at an eighth", streams: 3, route: border(8)},
	{name: "border at a quarter", streams: 3, route: border(4)},
	{name: "border at all live blocks", streams: 3, route: border(1)},
	{name: "best of 10 at random", score: chosenScore, sample: 10},
	{name: "best of 100 at random", score: chosenScore, sample: 100},
	{name: "5 segments more ahead", ahead: 5},
	{name: "20 segments more ahead", ahead: 20},
}

func toHot(*clean.Segment, clean.Time, int64) clean.Stream { return clean.Hot }

// border puts what is older than a part of the live blocks to Warm.
func border(part int64) func(*clean.Segment, clean.Time, int64) clean.Stream {
	return func(old *clean.Segment, now clean.Time, live int64) clean.Stream {
		if old == nil || int64(now-old.Written) > live/part {
			return clean.Warm
		}
		return clean.Hot
	}
}

func toThree(old *clean.Segment, now clean.Time, live int64) clean.Stream {
	switch {
	case old == nil || int64(now-old.Written) > 2*live:
		return clean.Cold
	case int64(now-old.Written) > live/2:
		return clean.Warm
	}
	return clean.Hot
}

func dead(s *clean.Segment) float64 { return float64(s.Blocks - s.Live) }

func chosenScore(s *clean.Segment, now clean.Time) float64 {
	return dead(s) / (float64(s.Live) + 1e-6) * float64(now-s.Sealed+1)
}

// costBenefit is that of Rosenblum and Ousterhout, 1992, with the age of the data.
func costBenefit(s *clean.Segment, now clean.Time) float64 {
	return dead(s) / float64(s.Blocks+s.Live) * float64(now-s.Written+1)
}

func costBenefitSealed(s *clean.Segment, now clean.Time) float64 {
	return dead(s) / float64(s.Blocks+s.Live) * float64(now-s.Sealed+1)
}

// exact is the score of the package comment.
func exact(s *clean.Segment, now clean.Time) float64 {
	u := max(float64(s.Live), 0.5) / float64(s.Blocks)
	return ((1-u)/u/-math.Log(u) - 1) * float64(now-s.Sealed+1)
}

// BenchmarkDesigns makes the table of docs/cleaning.md: with -benchtime 1x, WA is
// the amplification.
func BenchmarkDesigns(b *testing.B) {
	loads := append([]pattern{{name: "uniform", load: uniform}, {name: "90/10", load: skewed(0.9, 0.1)}}, patterns...)
	for _, d := range designs {
		for _, l := range loads {
			for _, full := range fulls {
				b.Run(fmt.Sprintf("%s/%s/%.0f", d.name, l.name, 100*full), func(b *testing.B) {
					var r result
					for b.Loop() {
						r = run(d, medium(full), l.load, 15, 5)
					}
					b.ReportMetric(r.amplification, "WA")
				})
			}
		}
	}
}
