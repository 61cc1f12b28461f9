package clean_test

import (
	"testing"

	"torpor/block/logvolume/clean"
)

func TestWrittenIsTheMean(t *testing.T) {
	var s clean.Segment
	sum, blocks := uint64(0), uint64(0)
	for i := range uint64(20000) {
		n, written := 1+i%7, 1<<40+i*i%9973-i
		s.Append(int32(n), clean.Time(written))
		sum, blocks = sum+n*written, blocks+n
		if got, want := uint64(s.Written), sum/blocks; got > want+1 || got+1 < want {
			t.Fatalf("after %d blocks: written %d, want %d", blocks, got, want)
		}
	}
	if uint64(s.Blocks) != blocks || s.Live != s.Blocks {
		t.Errorf("%d blocks, %d live, want %d", s.Blocks, s.Live, blocks)
	}
}

func TestChoose(t *testing.T) {
	const now, until = 1000, 900
	p := clean.For(1000)
	segment := func(blocks, live int32, sealed clean.Time) clean.Segment {
		return clean.Segment{Blocks: blocks, Live: live, Sealed: sealed}
	}
	full, free := segment(100, 100, 1), segment(0, 0, 1)
	for name, c := range map[string]struct {
		segments []clean.Segment
		free     int
		want     int // -1: none
	}{
		"nothing":                       {nil, 9, -1},
		"none with anything dead":       {[]clean.Segment{full, free}, 9, -1},
		"not behind the checkpoint":     {[]clean.Segment{segment(100, 0, 901), full}, 9, -1},
		"as old as the checkpoint":      {[]clean.Segment{full, segment(100, 99, 900)}, 9, 1},
		"empty ones first":              {[]clean.Segment{segment(100, 1, 1), segment(100, 0, 900)}, 9, 1},
		"the one with more dead":        {[]clean.Segment{segment(100, 60, 500), segment(100, 50, 500)}, 9, 1},
		"the older one":                 {[]clean.Segment{segment(100, 50, 500), segment(100, 50, 400)}, 9, 1},
		"an old one before an emptier":  {[]clean.Segment{segment(100, 40, 890), segment(100, 80, 1)}, 9, 1},
		"the emptier when users wait":   {[]clean.Segment{segment(100, 40, 890), segment(100, 80, 1)}, p.Reserve, 0},
		"short segments by their parts": {[]clean.Segment{segment(100, 50, 500), segment(10, 4, 500)}, 9, 1},
	} {
		i, ok := p.Choose(c.segments, now, until, c.free)
		if !ok {
			i = -1
		}
		if i != c.want {
			t.Errorf("%s: chose %d, want %d", name, i, c.want)
		}
	}
}

func TestRoute(t *testing.T) {
	p := clean.For(1000)
	for _, c := range []struct {
		written, now clean.Time
		want         clean.Stream
	}{
		{1000, 1000, clean.Hot},
		{1001, 1000, clean.Hot}, // times may be wrong after a crash
		{1000, 1050, clean.Hot},
		{1000, 1051, clean.Warm},
	} {
		if got := p.Route(c.written, c.now, 100); got != c.want {
			t.Errorf("route written %d at %d of 100 live: %d, want %d", c.written, c.now, got, c.want)
		}
	}
}

func TestDemote(t *testing.T) {
	for segments, want := range map[int][3]clean.Stream{
		1000: {clean.Warm, clean.Cold, clean.Cold},
		50:   {clean.Warm, clean.Warm, clean.Warm}, // Cold is of a log that was larger
	} {
		for from, to := range want {
			if got := clean.For(segments).Demote(clean.Stream(from)); got != to {
				t.Errorf("%d segments: demote %d to %d, want %d", segments, from, got, to)
			}
		}
	}
}

func TestMarksAreInOrder(t *testing.T) {
	for _, segments := range []int{0, 1, 50, 99, 100, 1000, 250000, 1 << 30} {
		p := clean.For(segments)
		if p.Reserve < 2 || p.Low <= p.Reserve || p.High <= p.Low || p.High > 24 {
			t.Errorf("%d segments: %+v", segments, p)
		}
	}
}

// At Low as many blocks become free as users write, or more, and the fewer are
// free the more.
func TestPaceKeepsUp(t *testing.T) {
	p := clean.For(1000)
	last := 0.0
	for free := p.High; free >= 0; free-- {
		v := clean.Segment{Blocks: 100, Live: 80}
		pace := p.Pace(v, free)
		if pace < 4 || pace < last {
			t.Errorf("pace at %d free: %v after %v, want at least 4", free, pace, last)
		}
		last = pace
	}
}

func BenchmarkChoose(b *testing.B) {
	for name, n := range map[string]int{"16000": 16000, "250000": 250000} {
		b.Run(name, func(b *testing.B) {
			segments := make([]clean.Segment, n)
			for i := range segments {
				segments[i] = clean.Segment{Blocks: 1000, Live: int32(1 + i*7919%1000), Sealed: clean.Time(i * 31 % n)}
			}
			p := clean.For(n)
			for b.Loop() {
				p.Choose(segments, clean.Time(n), clean.Time(n), n)
			}
		})
	}
}
