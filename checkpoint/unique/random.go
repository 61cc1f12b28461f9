package unique

import (
	"encoding/binary"
	"math/bits"
)

// looksRandom reports whether bytes, of which there are some hundreds at least
// and a multiple of 8, can be the output of a generator: each of the eight
// bytes of a word has about as many ones as zeros, and words do not repeat. It
// is never the only evidence: compressed data looks random too.
func looksRandom(b []byte) bool {
	var ones [8]int
	seen := map[uint64]bool{}
	for at := 0; at+8 <= len(b); at += 8 {
		seen[binary.LittleEndian.Uint64(b[at:])] = true
		for i := range ones {
			ones[i] += bits.OnesCount8(b[at+i])
		}
	}
	words := len(b) / 8
	if len(seen) < words-1 {
		return false
	}
	for _, n := range ones {
		// The sum of 8*words fair bits deviates by sqrt(2*words); six times that.
		if d := n - 4*words; d*d > 36*2*words {
			return false
		}
	}
	return true
}
