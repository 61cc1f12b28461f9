package unique

import (
	crand "crypto/rand"
	"math/rand/v2"
)

// generator makes the random bytes of one Renew: ChaCha8 with a seed from the
// kernel, because the kernel's own takes several milliseconds for the
// megabytes that some programs need.
type generator struct{ *rand.ChaCha8 }

func newGenerator() *generator {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails
	return &generator{rand.NewChaCha8(seed)}
}

func (g *generator) bytes(count int) []byte {
	b := make([]byte, count)
	_, _ = g.Read(b) // never fails
	return b
}
