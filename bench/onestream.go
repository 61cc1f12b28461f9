package bench

import "math/rand/v2"

// plainLog is the log that others are compared with: one stream for all that is
// written and moved, and always the segment with the least useful blocks is
// cleaned. It only counts.
type plainLog struct {
	perSegment int
	at         []int32   // by block: the segment that has it
	content    [][]int32 // by segment: the blocks that were written to it
	live       []int
	open       int
	free       []int
	written    int // blocks, with moved ones
}

// oneStream returns the amplification of a plain log.
func oneStream(segments, perSegment, blocks, overwrites int, s skew) float64 {
	p := &plainLog{perSegment: perSegment, at: make([]int32, blocks), content: make([][]int32, segments), live: make([]int, segments)}
	for i := range p.at {
		p.at[i] = -1
	}
	for i := 1; i < segments; i++ {
		p.free = append(p.free, i)
	}
	for i := range blocks {
		p.write(i)
	}
	r := rand.New(rand.NewPCG(1, 2))
	overwrite := func() {
		for range blocks * overwrites {
			p.write(s.pick(r, blocks))
		}
	}
	overwrite()
	before := p.written
	overwrite()
	return float64(p.written-before) / float64(blocks*overwrites)
}

// write appends a block, and cleans first if that needs room. One free segment
// is enough: a victim's blocks fit into it.
func (p *plainLog) write(block int) {
	p.append(block)
	for len(p.free) == 0 {
		p.clean()
	}
}

func (p *plainLog) append(block int) {
	if len(p.content[p.open]) == p.perSegment {
		p.open, p.free = p.free[0], p.free[1:]
	}
	if old := p.at[block]; old >= 0 {
		p.live[old]--
	}
	p.at[block] = int32(p.open)
	p.live[p.open]++
	p.content[p.open] = append(p.content[p.open], int32(block))
	p.written++
}

func (p *plainLog) clean() {
	victim := -1
	for i := range p.live {
		if i != p.open && len(p.content[i]) == p.perSegment && (victim < 0 || p.live[i] < p.live[victim]) {
			victim = i
		}
	}
	content := p.content[victim]
	p.content[victim] = nil
	p.free = append(p.free, victim)
	for _, block := range content {
		if p.at[block] == int32(victim) {
			p.append(int(block))
		}
	}
}
