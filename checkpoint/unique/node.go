package unique

import (
	"slices"

	"torpor/kernel/proc"
)

// Functions of V8 that node exports.
const (
	v8CurrentIsolate = "_ZN2v87Isolate10GetCurrentEv"
	v8Generator      = "_ZN2v88internal7Isolate23random_number_generatorEv"
	v8SetSeed        = "_ZN2v84base21RandomNumberGenerator7SetSeedEl"
)

// node looks for the random state of V8 and of node's module crypto. V8's
// generator, from which contexts seed their Math.random, is found by its own
// functions: on threads without JavaScript the first one returns nothing.
func (f *finder) node() search {
	o := f.exports(v8CurrentIsolate)
	if o == nil {
		return nil
	}
	f.share("V8's seed of string hashes")
	s := &nodeSearch{v8Search: v8Search{finder: f, states: map[uint64][]uint64{}}}
	if f.exports(v8CurrentIsolate, v8Generator, v8SetSeed) == nil {
		s.searchSeeds = true
		f.share("V8's seed of Math.random in contexts that did not use it yet, if its generator was used very often")
		return s
	}
	step := func(name string, args ...Arg) Step {
		return Step{Name: name, Func: proc.Addr(o.symbol(name)), Args: args}
	}
	f.spec.Calls = append(f.spec.Calls, Call{EveryThread: true, Steps: []Step{
		step(v8CurrentIsolate), step(v8Generator, ArgResult), step(v8SetSeed, ArgResult, ArgRandom),
	}})
	return s
}

// nodeSearch looks besides for the random bytes that node's module crypto
// fetches ahead: for randomUUID and randomInt.
type nodeSearch struct {
	v8Search
	variables tries
	found     bool
}

// Constants of node's lib/internal/crypto/random.js.
const (
	nodeUUIDBytes    = 16 * nodeBatch
	nodeBatch        = 128
	nodeIntegerBytes = 6 * 1024
	nodeIntegerStep  = 6
)

// Small integers and references as V8 has them: a small integer is in the
// upper half of a word, a reference has the low bits 01.
const (
	nodeMaxInt32  = 0x7fffffff << 32 // kMaxInt32, a constant of the module
	nodeBatchSize = nodeBatch << 32  // kBatchSize, another
	nodeSlots     = 16               // at most between them and randomCache
)

func reference(w uint64) bool { return w&3 == 1 }

// small returns a small integer.
func small(w uint64) (value uint64, ok bool) { return w >> 32, uint32(w) == 0 }

func (s *nodeSearch) look(p piece) {
	s.v8Search.look(p)
	for i := 0; i < p.limit(8); i += 8 {
		if p.word(i) == nodeMaxInt32 {
			s.module(p.addr + uint64(i))
		}
	}
}

// next names what was not found: nobody may have loaded the module.
func (s *nodeSearch) next() search {
	if !s.found {
		s.share("node's bytes for crypto.randomUUID and crypto.randomInt, if they were used (they are not found)")
	}
	return s.v8Search.next()
}

// module examines what may be the variables of the module, in the order in
// which it declares them: kMaxInt32 ... randomCache, randomCacheOffset,
// asyncCacheFillInProgress, asyncCachePendingTasks ... kBatchSize, uuidData,
// uuidNotBuffered, uuidBatch.
func (s *nodeSearch) module(slots uint64) {
	if !s.variables.another(s.finder, "node's bytes for crypto.randomUUID and crypto.randomInt") {
		return
	}
	w := s.words(slots, 2*nodeSlots+4)
	if w == nil {
		return
	}
	for i := 1; i < nodeSlots; i++ {
		offset, ok := small(w[i+1])
		batch := slices.Index(w[i+4:i+nodeSlots], nodeBatchSize) + i + 4
		if !ok || offset > nodeIntegerBytes || offset%nodeIntegerStep != 0 || batch < i+4 ||
			!reference(w[i]) || !reference(w[i+2]) || !reference(w[i+3]) {
			continue
		}
		if taken, ok := small(w[batch+3]); ok && taken < nodeBatch && s.isArray(w[i], nodeIntegerBytes) {
			s.found = true
			s.array(w[i], nodeIntegerBytes)
			s.array(w[batch+1], nodeUUIDBytes)
		}
	}
}

// isArray reports whether a reference is to an object that says this length.
func (s *nodeSearch) isArray(ref, lenBytes uint64) bool {
	return slices.Contains(s.words(ref-1, nodeArrayWords), lenBytes)
}

// Words of a Uint8Array and of its ArrayBuffer in which length, buffer and
// start are; newer versions have one before the buffer.
const (
	nodeArrayWords  = 12
	nodeBuffer      = 3
	nodeBufferLater = 4
)

// array notes the bytes of a Uint8Array. It and its buffer have in common
// where they are. It is undefined, or zeros, until it is used.
func (s *nodeSearch) array(ref, lenBytes uint64) {
	w := s.words(ref-1, nodeArrayWords)
	if !slices.Contains(w, lenBytes) {
		return
	}
	for _, buffer := range w[nodeBuffer : nodeBufferLater+1] {
		of := s.words(buffer-1, nodeArrayWords)
		if !reference(buffer) || !slices.Contains(of, lenBytes) {
			continue
		}
		for _, data := range w {
			if data%16 == 0 && slices.Contains(of, data) && s.random(data, int(lenBytes)) {
				s.add(Place{Kind: KindBytes, Addr: proc.Addr(data), LenBytes: lenBytes})
			}
		}
	}
}

// random reports whether random bytes are at addr.
func (s *nodeSearch) random(addr uint64, lenBytes int) bool {
	b := make([]byte, lenBytes)
	return s.read(b, addr) && looksRandom(b)
}
