package unique

import (
	"encoding/binary"
	"math"

	"torpor/kernel/proc"
)

// What V8 keeps for Math.random in each context: an array of numbers, made in
// one go and given out one by one, and the state of xorshift128+ after the
// last one. A small integer is in the upper half of its word.
const (
	v8CacheWords  = 64
	v8CacheLength = v8CacheWords << 32
	v8StateLength = 16 << 32
	v8One         = 0x3ff0000000000000 // as float64
)

// v8Search looks for arrays of 64 numbers below one, and for arrays of 16 bytes
// that may be the state after their last.
type v8Search struct {
	*finder
	tries
	pairs  tries
	caches []uint64            // addresses of the numbers
	states map[uint64][]uint64 // addresses, by the upper bits of the first word

	searchSeeds bool
	seeds       int // examined
}

// v8LeastBits of a word are part of a number in all versions.
const v8LeastBits = 52

func (s *v8Search) look(p piece) {
	for i := 0; i < p.limit(32); i += 8 {
		switch p.word(i) {
		case mallocChunk, mallocOther:
			if s.searchSeeds {
				s.seedAt(p, i)
			}
		case v8CacheLength:
			if a, b := p.word(i+8), p.word(i+16); a < v8One && b < v8One && a != b {
				s.cache(p.addr + uint64(i) + 8)
			}
		case v8StateLength:
			if a, b := p.word(i+8), p.word(i+16); a != 0 && b != 0 && s.another(s.finder, "V8's Math.random") {
				key := a >> (64 - v8LeastBits)
				s.states[key] = append(s.states[key], p.addr+uint64(i)+8)
			}
		}
	}
}

func (s *v8Search) cache(addr uint64) {
	if len(s.caches) < mostPlaces {
		s.caches = append(s.caches, addr)
	}
}

// next matches numbers and states: going back from the state, each step must
// give one of the numbers.
func (s *v8Search) next() search {
	for _, cache := range s.caches {
		numbers := s.words(cache, v8CacheWords)
		if numbers == nil {
			continue
		}
		last := math.Float64frombits(numbers[v8CacheWords-1])
		for _, state := range s.states[uint64(last*(1<<v8LeastBits))] {
			if !s.pairs.another(s.finder, "V8's Math.random") {
				return nil
			}
			if bits := v8FractionBits(numbers, s.words(state, 2)); bits > 0 {
				s.add(Place{Kind: KindV8Math, Addr: proc.Addr(cache), Also: proc.Addr(state), FractionBits: bits})
				break
			}
		}
	}
	return nil
}

// v8FractionBits is how many bits of a word became a number, 0 if the numbers
// do not come from the state. Older versions put 52 bits into a float64
// between 1 and 2 and subtract 1, newer ones scale 53 bits.
func v8FractionBits(numbers, state []uint64) int {
	for _, bits := range []int{52, 53} {
		if len(state) == 2 && v8Gives(numbers, xorshift{state[0], state[1]}, bits) {
			return bits
		}
	}
	return 0
}

func v8Gives(numbers []uint64, x xorshift, bits int) bool {
	for i := len(numbers) - 1; i >= 0; i-- {
		if math.Float64frombits(numbers[i]) != x.number(bits) {
			return false
		}
		x = x.back()
	}
	return true
}

// newV8Math returns the numbers of a new state and the state after them.
func newV8Math(random *generator, bits int) (numbers, state []byte) {
	x := xorshift{random.Uint64() | 1, random.Uint64()} // zeros would stay zeros
	for range v8CacheWords {
		x = x.step()
		numbers = binary.LittleEndian.AppendUint64(numbers, math.Float64bits(x.number(bits)))
	}
	return numbers, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, x.s0), x.s1)
}

// xorshift is the state of V8's xorshift128+.
type xorshift struct{ s0, s1 uint64 }

func (x xorshift) step() xorshift {
	t := x.s0
	t ^= t << 23
	t ^= t >> 17
	return xorshift{x.s1, t ^ x.s1 ^ x.s1>>26}
}

// back is the state before.
func (x xorshift) back() xorshift {
	t := x.s1 ^ x.s0 ^ x.s0>>26
	t ^= t>>17 ^ t>>34 ^ t>>51
	t ^= t<<23 ^ t<<46
	return xorshift{t, x.s0}
}

// number is what Math.random makes of it.
func (x xorshift) number(bits int) float64 {
	return float64(x.s0>>(64-bits)) / float64(uint64(1)<<bits)
}
