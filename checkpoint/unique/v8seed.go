package unique

import (
	"encoding/binary"
	"math/bits"

	"torpor/kernel/proc"
)

// v8Seed is V8's RandomNumberGenerator: what it was seeded with and the state
// of xorshift128+. Contexts seed their Math.random from one of it.
type v8Seed struct {
	seed uint64
	xorshift
}

const (
	v8SeedBytes = 24
	v8SeedSteps = 1 << 17 // how far a generator is followed, some 0.2 ms
	v8SeedTries = 1 << 9
	// mallocChunk is what glibc's malloc has before 24 bytes: their size with
	// its own word, and that the piece before is in use; mallocOther besides
	// that the thread that asked was not the first one.
	mallocChunk = 0x21
	mallocOther = 0x25
)

// murmur is the mixing of MurmurHash3.
func murmur(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// newV8Seed is a generator that was just seeded.
func newV8Seed(seed uint64) v8Seed {
	first := murmur(seed)
	return v8Seed{seed, xorshift{first, murmur(^first)}}
}

// bytes is the generator as it is in memory.
func (v v8Seed) bytes() []byte {
	b := binary.LittleEndian.AppendUint64(nil, v.seed)
	b = binary.LittleEndian.AppendUint64(b, v.s0)
	return binary.LittleEndian.AppendUint64(b, v.s1)
}

// follows reports whether the state comes from the seed.
func (v v8Seed) follows() bool {
	x := newV8Seed(v.seed).xorshift
	for range v8SeedSteps {
		if x == v.xorshift {
			return true
		}
		x = x.step()
	}
	return false
}

// seedAt examines what may be a generator: an allocation of three random words.
func (s *v8Search) seedAt(p piece, i int) {
	v := v8Seed{p.word(i + 8), xorshift{p.word(i + 16), p.word(i + 24)}}
	for _, w := range []uint64{v.seed, v.s0, v.s1} {
		// Neither an address nor text.
		if ones := bits.OnesCount64(w); w>>48 == 0 || ones < 12 || ones > 52 || w&0x8080808080808080 == 0 {
			return
		}
	}
	if s.seeds++; s.seeds <= v8SeedTries && v.follows() {
		s.add(Place{Kind: KindV8Seed, Addr: proc.Addr(p.addr + uint64(i) + 8)})
	}
}
