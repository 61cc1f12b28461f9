package clean_test

import (
	"math"
	"math/rand/v2"
)

// load makes the blocks, of n, that users overwrite.
type load func(n int, r *rand.Rand) (next func() uint32)

// scatter is a permutation of the blocks below n, so that those that are often
// written are not neighbours.
func scatter(n int) func(int) uint32 {
	by := 2654435761
	for gcd(by, n) != 1 {
		by++
	}
	return func(b int) uint32 { return uint32(b * by % n) }
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func uniform(n int, r *rand.Rand) func() uint32 {
	return func() uint32 { return uint32(r.IntN(n)) }
}

func sequential(n int, _ *rand.Rand) func() uint32 {
	i := -1
	return func() uint32 {
		i = (i + 1) % n
		return uint32(i)
	}
}

// skewed gives a part of the writes to a part of the blocks.
func skewed(writes, blocks float64) load {
	return func(n int, r *rand.Rand) func() uint32 {
		hot, place := int(blocks*float64(n)), scatter(n)
		return func() uint32 {
			if r.Float64() < writes {
				return place(r.IntN(hot))
			}
			return place(hot + r.IntN(n-hot))
		}
	}
}

// zipf writes the i-th of the blocks with a probability in proportion to
// i^-0.99, by the alias method.
func zipf(n int, r *rand.Rand) func() uint32 {
	weight, sum := make([]float64, n), 0.0
	for i := range weight {
		weight[i] = math.Pow(float64(i+1), -0.99)
		sum += weight[i]
	}
	alias := make([]uint32, n)
	var few, many []int
	put := func(i int) {
		if weight[i] < 1 {
			few = append(few, i)
		} else {
			many = append(many, i)
		}
	}
	for i := range weight {
		weight[i] *= float64(n) / sum
		put(i)
	}
	for len(few) > 0 && len(many) > 0 {
		a, b := few[len(few)-1], many[len(many)-1]
		few, many = few[:len(few)-1], many[:len(many)-1]
		alias[a] = uint32(b)
		weight[b] -= 1 - weight[a]
		put(b)
	}
	for _, i := range append(few, many...) {
		weight[i] = 1
	}
	place := scatter(n)
	return func() uint32 {
		i := r.IntN(n)
		if r.Float64() < weight[i] {
			return place(i)
		}
		return place(int(alias[i]))
	}
}

// moving gives 90 % of the writes to a tenth of the blocks, which has gone on by
// its own length whenever so many blocks were written as there are.
func moving(n int, r *rand.Rand) func() uint32 {
	place, i := scatter(n), 0
	return func() uint32 {
		i++
		if r.Float64() < 0.9 {
			return place((i/10 + r.IntN(n/10)) % n)
		}
		return uint32(r.IntN(n))
	}
}

// jumping gives 90 % of the writes to a 20th of the blocks, another one whenever
// twice so many blocks were written as there are.
func jumping(n int, r *rand.Rand) func() uint32 {
	place, i := scatter(n), 0
	return func() uint32 {
		i++
		if r.Float64() < 0.9 {
			return place((i/(2*n)*7*(n/20) + r.IntN(n/20)) % n)
		}
		return uint32(r.IntN(n))
	}
}

// sweeping overwrites all in order, 16 blocks at a time, and 16 skewed ones
// between.
func sweeping(n int, r *rand.Rand) func() uint32 {
	random, order, i := skewed(0.9, 0.1)(n, r), sequential(n, r), 0
	return func() uint32 {
		i++
		if i&16 == 0 {
			return order()
		}
		return random()
	}
}

// halves overwrites one half in order and the other at random.
func halves(n int, r *rand.Rand) func() uint32 {
	random, order, i := uniform(n-n/2, r), sequential(n/2, r), 0
	return func() uint32 {
		i++
		if i&16 == 0 {
			return order()
		}
		return uint32(n/2) + random()
	}
}

// journaled is like a file system: 30 % go around a journal of 1 %, 60 % to a
// tenth, the rest anywhere.
func journaled(n int, r *rand.Rand) func() uint32 {
	journal := sequential(n/100, r)
	return func() uint32 {
		switch x := r.Float64(); {
		case x < 0.3:
			return journal()
		case x < 0.9:
			return uint32(n/100 + r.IntN(n/10))
		}
		return uint32(r.IntN(n))
	}
}
