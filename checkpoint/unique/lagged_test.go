package unique

import (
	"encoding/binary"
	"math/rand"
	"testing"
)

// stateOf is the state of a source as it is in memory.
func stateOf(seed int64, outputs int) []byte {
	source := rand.NewSource(seed).(rand.Source64)
	l := &lagged{feed: laggedBetween}
	for range outputs + laggedWords {
		l.tap, l.feed = (l.tap+laggedWords-1)%laggedWords, (l.feed+laggedWords-1)%laggedWords
		l.vec[l.feed] = source.Uint64()
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(l.tap))
	b = binary.LittleEndian.AppendUint64(b, uint64(l.feed))
	for _, w := range l.vec {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// TestLagged follows states of math/rand back to their seeds, and does not
// believe one of which 8 bytes belong to someone else by now.
func TestLagged(t *testing.T) {
	for seed, outputs := range map[int64]int{1: 0, 42: 1, 1 << 40: 606, -7: 12345, 99: 607 * 1000} {
		b := stateOf(seed, outputs)
		if _, ok := parseLagged(b).fromSeed(2000); !ok {
			t.Errorf("seed %d after %d outputs is not found", seed, outputs)
		}
		b[1000]++
		if _, ok := parseLagged(b).fromSeed(2000); ok {
			t.Errorf("seed %d after %d outputs is found in a damaged state", seed, outputs)
		}
	}
}

func BenchmarkLagged(b *testing.B) {
	l := parseLagged(stateOf(1, 0))
	l.vec[0]++
	l.fromSeed(b.N)
}
