package clean_test

import (
	"math/rand/v2"

	"torpor/block/logvolume/clean"
)

// design is what a simulated log does; some are only there to be compared with.
type design struct {
	name    string
	streams int // 0: as the policy says
	// score replaces Choose: the victim is the segment with the highest.
	score func(s *clean.Segment, now clean.Time) float64
	// sample is how many segments score is asked about, taken at random; 0: all.
	sample int
	// route replaces Route and First, of which old is nil; demote replaces Demote.
	route  func(old *clean.Segment, now clean.Time, live int64) clean.Stream
	demote func(from clean.Stream) clean.Stream
	// ahead is added to the marks.
	ahead int
	// atOnce moves a victim's blocks between two changes of users.
	atOnce bool
}

// shape is how large a simulated log is.
type shape struct {
	segments, blocks int     // blocks of each segment
	full             float64 // what users have of it
	checkpoint       int     // blocks appended between checkpoints; 0: 4 segments of them
}

// users is how many blocks users have.
func (sh shape) users() int { return int(sh.full * float64(sh.segments) * float64(sh.blocks)) }

const nowhere = ^uint32(0)

// metaSegments are kept by the stream for the map, which is not simulated.
const metaSegments = 2

// sim is a log without content.
type sim struct {
	design
	shape
	policy   clean.Policy
	segments []clean.Segment // open and free ones are in filling, for Choose they have no blocks
	filling  []clean.Segment // by stream
	open     []int
	next     []int
	free     []int
	owner    []uint32 // by location: the block that was put there
	at       []uint32 // by block: its location
	live     int64
	random   *rand.Rand

	victim     int           // -1: none
	chosen     clean.Segment // the victim as it was when it was chosen
	cursor     int           // in victim
	credit     float64
	cleaning   bool
	now, until clean.Time
	appended   int

	users, moved, stalls int
	idle                 float64 // sum over changes: free segments
}

func newSim(d design, sh shape) *sim {
	s := &sim{design: d, shape: sh, policy: clean.For(sh.segments), victim: -1, random: rand.New(rand.NewPCG(7, 8))}
	if d.streams != 0 {
		s.policy.Streams = d.streams
	}
	s.policy.Low += d.ahead
	s.policy.High += d.ahead
	if s.checkpoint == 0 {
		s.checkpoint = 4 * sh.blocks
	}
	s.segments = make([]clean.Segment, sh.segments)
	s.filling = make([]clean.Segment, s.policy.Streams)
	s.owner = make([]uint32, sh.segments*sh.blocks)
	s.at = make([]uint32, sh.users())
	for b := range s.at {
		s.at[b] = nowhere
	}
	for i := sh.segments - 1; i >= metaSegments; i-- {
		s.free = append(s.free, i)
	}
	for range s.filling {
		s.open, s.next = append(s.open, s.take()), append(s.next, s.take())
	}
	return s
}

func (s *sim) take() int {
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return i
}

// segmentOf returns where what is known of the segment of a location is.
func (s *sim) segmentOf(at uint32) *clean.Segment {
	i := int(at) / s.blocks
	for stream, open := range s.open {
		if i == open {
			return &s.filling[stream]
		}
	}
	return &s.segments[i]
}

func (s *sim) append(to clean.Stream, b uint32, written clean.Time) {
	f := &s.filling[to]
	at := s.open[to]*s.blocks + int(f.Blocks)
	s.owner[at], s.at[b] = b, uint32(at)
	f.Append(1, written)
	s.appended++
	if s.appended%s.checkpoint == 0 {
		s.until = s.now
	}
	if int(f.Blocks) < s.blocks {
		return
	}
	f.Stream, f.Sealed = to, s.now
	s.segments[s.open[to]] = *f
	*f = clean.Segment{}
	s.open[to] = s.next[to]
	s.next[to] = s.take()
}

// write is a user's.
func (s *sim) write(b uint32) {
	for len(s.free) <= s.policy.Reserve {
		s.stalls++
		s.clean(1)
	}
	var to clean.Stream
	if at := s.at[b]; at != nowhere {
		old := s.segmentOf(at)
		old.Live--
		to = s.routed(old)
	} else {
		s.live++
		to = s.routed(nil)
	}
	s.append(to, b, s.now)
	s.now++
	s.users++
	s.idle += float64(len(s.free))
	switch {
	case s.cleaning:
		s.cleaning = len(s.free) < s.policy.High
	default:
		s.cleaning = len(s.free) < s.policy.Low
	}
	if s.cleaning {
		s.clean(0)
	}
}

func (s *sim) routed(old *clean.Segment) clean.Stream {
	switch {
	case s.policy.Streams == 1:
		return clean.Hot
	case s.route != nil:
		return s.route(old, s.now, s.live)
	case old == nil:
		return s.policy.First()
	}
	return s.policy.Route(old.Written, s.now, s.live)
}

// clean moves as many blocks as the policy says, and at least some.
func (s *sim) clean(least float64) {
	if s.victim < 0 {
		i, ok := s.choose()
		if !ok {
			return
		}
		s.victim, s.cursor, s.chosen = i, i*s.blocks, s.segments[i]
	}
	v := &s.segments[s.victim]
	if s.atOnce {
		s.credit = float64(s.blocks)
	}
	s.credit += max(least, s.policy.Pace(s.chosen, len(s.free)))
	to := s.policy.Demote(v.Stream)
	if s.demote != nil {
		to = s.demote(v.Stream)
	}
	for s.credit >= 1 && v.Live > 0 {
		at := uint32(s.cursor)
		s.cursor++
		if b := s.owner[at]; s.at[b] == at {
			v.Live--
			s.append(to, b, v.Written)
			s.moved++
			s.credit--
		}
	}
	if v.Live == 0 {
		*v = clean.Segment{}
		s.free = append(s.free, s.victim)
		s.victim, s.credit = -1, 0
	}
}

func (s *sim) choose() (int, bool) {
	if s.score == nil {
		return s.policy.Choose(s.segments, s.now, s.until, len(s.free))
	}
	best, index := 0.0, -1
	for n := 0; n < len(s.segments); n++ {
		i := n
		if s.sample > 0 {
			i = s.random.IntN(len(s.segments))
			if n >= s.sample && index >= 0 {
				break
			}
		}
		v := &s.segments[i]
		if v.Live >= v.Blocks || v.Sealed > s.until {
			continue
		}
		if score := s.score(v, s.now); index < 0 || score > best {
			index, best = i, score
		}
	}
	return index, index >= 0
}

// result is what users' writes cost in the steady state.
type result struct {
	amplification float64 // (users' + moved) / users'
	// stalls is how often users waited for the cleaner to do one change's work.
	stalls, changes int
	// room is what users' blocks would be of the segments that have any, had they
	// no free ones: full, corrected by what is idle.
	room float64
}

// run fills a log, lets it settle, and measures; warm and measured are in
// users' blocks.
func run(d design, sh shape, l load, warm, measured float64) result {
	s := newSim(d, sh)
	n := sh.users()
	next := l(n, rand.New(rand.NewPCG(1, 2)))
	for b := range n {
		s.write(uint32(b))
	}
	for range int(warm * float64(n)) {
		s.write(next())
	}
	s.users, s.moved, s.stalls, s.idle = 0, 0, 0, 0
	for range int(measured * float64(n)) {
		s.write(next())
	}
	users := float64(s.users)
	idle := s.idle/users + metaSegments + 1.5*float64(s.policy.Streams)
	return result{
		amplification: 1 + float64(s.moved)/users,
		stalls:        s.stalls,
		changes:       s.users,
		room:          sh.full * float64(sh.segments) / (float64(sh.segments) - idle),
	}
}
