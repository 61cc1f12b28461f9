package unique

import "torpor/kernel/proc"

// The classes of numpy's generators. Each object holds a bitgen_t, which is a
// pointer to the state in the same object and four functions.
const (
	numpyMT19937   = "numpy.random._mt19937.MT19937"
	numpyPCG64     = "numpy.random._pcg64.PCG64"
	numpyPCG64DXSM = "numpy.random._pcg64.PCG64DXSM"
	numpyPhilox    = "numpy.random._philox.Philox"
	numpySFC64     = "numpy.random._sfc64.SFC64"

	numpyBitgen      = 4 // word of the object
	numpyBitgenWords = 5
	numpyMostBytes   = 4096 // of an object
)

// numpy examines what may be one of numpy's generators.
func (s *pythonObjects) numpy(object uint64, class string) {
	w := s.words(object, numpyBitgen+numpyBitgenWords)
	if w == nil {
		return
	}
	state := w[numpyBitgen]
	for _, function := range w[numpyBitgen+1:] {
		if !s.executable(function) {
			return
		}
	}
	within := func(addr uint64) bool { return addr > object && addr < object+numpyMostBytes }
	if !within(state) {
		return
	}
	bytes := func(addr, lenBytes uint64) {
		s.add(Place{Kind: KindBytes, Addr: proc.Addr(addr), LenBytes: lenBytes})
	}
	// half is the flag that half of an output is left.
	half := func(addr uint64) { s.add(Place{Kind: KindZero, Addr: proc.Addr(addr), LenBytes: 4}) }
	switch first, second := s.word(state), s.word(state+8); class {
	case numpyMT19937: // 624 words, how many are used
		bytes(state, 4*mtWords)
	case numpyPCG64, numpyPCG64DXSM: // pointer to state and increment, flag
		if within(first) {
			bytes(first, 16)
			half(state + 8)
		}
	case numpyPhilox: // pointers to counter and key, position, 4 outputs, flag
		if within(first) && within(second) {
			bytes(second, 16)
			bytes(state+24, 32)
			half(state + 56)
		}
	case numpySFC64: // 3 words and a counter, flag
		bytes(state, 24)
		half(state + 32)
	}
}
