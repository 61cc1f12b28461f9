package unique

import (
	"encoding/binary"
	"math/rand"
	"sync"
)

// lagged is the state of Go's math/rand.NewSource: each output is the sum of
// two earlier ones. Any words are a state of it, and memory that was freed and
// partly used again would look like one: so a state counts only if going back
// from it leads to what some seed gives.
type lagged struct {
	tap, feed int
	vec       [laggedWords]uint64
}

// Constants of rngSource: the length, the distance of tap and feed, and the
// generator x -> 48271 x mod 2^31-1 that makes its words of a seed.
const (
	laggedWords   = 607
	laggedBetween = 607 - 273
	laggedBytes   = 8 * (2 + laggedWords)
	seedModulus   = 1<<31 - 1
	seedFactor    = 48271
	seedSkip      = 20 // numbers before the first that is used
)

// Bounds of how far back one state, and all together, are followed, in rounds
// of 607 outputs. A round takes 9 us (BenchmarkLagged).
const (
	laggedRounds    = 1 << 11
	laggedRoundsAll = 1 << 13
)

// parseLagged decodes a rngSource, nil if its places are not as they must be.
func parseLagged(b []byte) *lagged {
	tap, feed := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if tap >= laggedWords || feed >= laggedWords || (feed+laggedWords-tap)%laggedWords != laggedBetween {
		return nil
	}
	l := &lagged{tap: int(tap), feed: int(feed)}
	for i := range l.vec {
		l.vec[i] = binary.LittleEndian.Uint64(b[16+8*i:])
	}
	return l
}

// back undoes one output.
func (l *lagged) back() {
	l.vec[l.feed] -= l.vec[l.tap]
	l.tap, l.feed = (l.tap+1)%laggedWords, (l.feed+1)%laggedWords
}

// fromSeed goes back until the state is one that a seed gives, with tap at the
// start. It returns how many rounds that took, at most so many.
func (l *lagged) fromSeed(most int) (rounds int, ok bool) {
	for {
		for l.tap != 0 {
			l.back()
		}
		if l.isSeeded() {
			return rounds, true
		}
		if rounds >= most {
			return rounds, false
		}
		rounds++
		l.back()
	}
}

// isSeeded looks for the number of the seed's sequence from which the first
// word was made; only its upper bits are not in that word as they are.
func (l *lagged) isSeeded() bool {
	const known = 20 // bits of the third number
	first := l.vec[0] ^ cooked()[0]
	low := first & (1<<known - 1)
	for high := uint64(0); high <= seedModulus>>known; high++ {
		third := high<<known | low
		second := third * seedInverse() % seedModulus
		if (second^third>>known^first>>known)&(1<<known-1) == 0 && l.continues(second*seedInverse()%seedModulus) {
			return true
		}
	}
	return false
}

// continues reports whether all words follow from the first number.
func (l *lagged) continues(x uint64) bool {
	for i, w := range seeded(x) {
		if l.vec[i] != w^cooked()[i] {
			return false
		}
	}
	return true
}

// seeded are the words that a sequence gives which begins with x.
func seeded(x uint64) (words [laggedWords]uint64) {
	for i := range words {
		second := x * seedFactor % seedModulus
		third := second * seedFactor % seedModulus
		words[i] = x<<40 ^ second<<20 ^ third
		x = third * seedFactor % seedModulus
	}
	return words
}

// seedInverse is the factor that undoes seedFactor: its power by Fermat.
var seedInverse = sync.OnceValue(func() uint64 {
	inverse, square := uint64(1), uint64(seedFactor)
	for n := uint64(seedModulus - 2); n > 0; n >>= 1 {
		if n&1 != 0 {
			inverse = inverse * square % seedModulus
		}
		square = square * square % seedModulus
	}
	return inverse
})

// cooked are the constants that are mixed into the words of a seed. They are
// taken from the library's own generator: a round of its outputs is its state.
var cooked = sync.OnceValue(func() *[laggedWords]uint64 {
	const seed = 1
	source := rand.NewSource(seed).(rand.Source64)
	l := &lagged{feed: laggedBetween}
	for range laggedWords {
		l.tap, l.feed = (l.tap+laggedWords-1)%laggedWords, (l.feed+laggedWords-1)%laggedWords
		l.vec[l.feed] = source.Uint64()
	}
	for range laggedWords {
		l.back()
	}
	x := uint64(seed)
	for range seedSkip + 1 {
		x = x * seedFactor % seedModulus
	}
	for i, w := range seeded(x) {
		l.vec[i] ^= w
	}
	return &l.vec
})
