package unique

import (
	"encoding/binary"
	"fmt"

	"torpor/kernel/proc"
)

// mtWords is the state of the Mersenne Twister.
const mtWords = 624

// size is how many bytes at Addr are written.
func (p *Place) size() uint64 {
	switch p.Kind {
	case KindMT19937:
		return 4 + 4*mtWords
	case KindChaCha8:
		return chachaBytes
	case KindV8Math:
		return 8 * v8CacheWords
	case KindV8Seed:
		return v8SeedBytes
	}
	return p.LenBytes
}

// sizeAlso is how many bytes at Also are written.
func (p *Place) sizeAlso() uint64 {
	if p.Kind == KindV8Math {
		return 16
	}
	return 0
}

// patches are what the place is overwritten with: state that its owner could
// have made, so that the next Find recognises it.
func (p *Place) patches(random *generator) ([]proc.Patch, error) {
	switch p.Kind {
	case KindBytes:
		return []proc.Patch{{Addr: p.Addr, Bytes: random.bytes(int(p.LenBytes))}}, nil
	case KindZero:
		return []proc.Patch{{Addr: p.Addr, Bytes: make([]byte, p.LenBytes)}}, nil
	case KindMT19937:
		return []proc.Patch{{Addr: p.Addr, Bytes: newTwister(random)}}, nil
	case KindChaCha8:
		return []proc.Patch{{Addr: p.Addr, Bytes: newChaCha8(random)}}, nil
	case KindV8Math:
		numbers, state := newV8Math(random, p.FractionBits)
		return []proc.Patch{{Addr: p.Addr, Bytes: numbers}, {Addr: p.Also, Bytes: state}}, nil
	case KindV8Seed:
		return []proc.Patch{{Addr: p.Addr, Bytes: newV8Seed(random.Uint64()).bytes()}}, nil
	}
	return nil, fmt.Errorf("place at %x is of unknown kind %q", uint64(p.Addr), p.Kind)
}

// newTwister is an index that makes the generator compute new words first, and
// the words: any will do.
func newTwister(random *generator) []byte {
	b := binary.LittleEndian.AppendUint32(nil, mtWords)
	return append(b, random.bytes(4*mtWords)...)
}

// newChaCha8 is a generator that was just given its seed.
func newChaCha8(random *generator) []byte {
	var seed [chachaSeed]uint64
	for i := range seed {
		seed[i] = random.Uint64()
	}
	var b []byte
	for _, w := range chachaBlock(seed, 0) {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	for _, w := range seed {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	b = binary.LittleEndian.AppendUint32(b, 0)            // taken
	b = binary.LittleEndian.AppendUint32(b, chachaBuffer) // may be
	return binary.LittleEndian.AppendUint32(b, 0)         // counter
}
