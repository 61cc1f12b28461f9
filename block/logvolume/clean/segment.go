package clean

// Time counts the blocks that users wrote since the log was made.
type Time uint64

// Stream is where a block is appended.
type Stream uint8

// Streams, from short to long lives.
const (
	Hot Stream = iota
	Warm
	Cold
)

// Segment is what is known of a segment for cleaning.
type Segment struct {
	Stream Stream
	Blocks int32 // appended; 0: not to be cleaned now
	Live   int32 // of these, useful
	// Written is the mean of the times at which users wrote the blocks, dead ones
	// included.
	Written Time
	Sealed  Time // when it was sealed

	rest int64 // the sum of the times is Written * Blocks + rest
}

// Append counts n blocks that users wrote at a time, which is that of the old
// segment for those that are moved.
func (s *Segment) Append(n int32, written Time) {
	s.Live += n
	s.Blocks += n
	s.rest += int64(n) * (int64(written) - int64(s.Written))
	by := s.rest / int64(s.Blocks)
	s.Written += Time(by)
	s.rest -= by * int64(s.Blocks)
}
