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
	if f.exports(v8CurrentIsolate, v8Generator, v8SetSeed) == nil {
		f.share("V8's seeds of Math.random in contexts that did not use it yet")
	} else {
		step := func(name string, args ...Arg) Step {
			return Step{Name: name, Func: proc.Addr(o.symbol(name)), Args: args}
		}
		f.spec.Calls = append(f.spec.Calls, Call{EveryThread: true, Steps: []Step{
			step(v8CurrentIsolate), step(v8Generator, ArgResult), step(v8SetSeed, ArgResult, ArgRandom),
		}})
	}
	return &nodeSearch{v8Search: v8Search{finder: f, states: map[uint64][]uint64{}}}
}

// nodeSearch looks besides for the random bytes that node fetches ahead:
// for crypto.randomUUID and crypto.randomInt.
type nodeSearch struct {
	v8Search
	uuid, integer tries
}

// Constants of node's lib/internal/crypto/random.js.
const (
	nodeUUIDBytes    = 16 * 128
	nodeIntegerBytes = 6 * 1024
	nodeIntegerStep  = 6
)

func (s *nodeSearch) look(p piece) {
	s.v8Search.look(p)
	for i := 0; i < p.limit(16); i += 8 {
		switch p.word(i) {
		case nodeUUIDBytes:
			if p.word(i+8) == nodeUUIDBytes {
				s.uuids(p.addr + uint64(i) - 8)
			}
		case nodeMaxInt32:
			s.integers(p.addr + uint64(i))
		}
	}
}

// uuids examines what may be the record of a buffer outside of V8's heap that
// node's secureBuffer made: its start, its length two or three times, and
// behind that the function that frees it, whose argument is the start again.
// Nothing but randomUUID has such a buffer of this length.
func (s *nodeSearch) uuids(record uint64) {
	const fields = 10
	if !s.uuid.another(s.finder, "node's bytes for crypto.randomUUID") {
		return
	}
	w := s.words(record, fields)
	if w == nil {
		return
	}
	data := slices.Index(w[1:], w[0]) + 1
	if data > 1 && s.executable(w[data-1]) && s.random(w[0], nodeUUIDBytes) {
		s.add(Place{Kind: KindBytes, Addr: proc.Addr(w[0]), LenBytes: nodeUUIDBytes})
	}
}

// executable reports whether code is at addr.
func (s *nodeSearch) executable(addr uint64) bool {
	return slices.ContainsFunc(s.vmas, func(v proc.VMA) bool {
		return v.Prot&proc.ProtExec != 0 && uint64(v.Start) <= addr && addr < uint64(v.End)
	})
}

// random reports whether random bytes are at addr, and not yet zeros.
func (s *nodeSearch) random(addr uint64, lenBytes int) bool {
	b := make([]byte, lenBytes)
	return s.read(b, addr) && looksRandom(b)
}

// Small integers and references as V8 has them: a small integer is in the
// upper half of a word, a reference has the low bits 01.
const (
	nodeMaxInt32  = 0x7fffffff << 32 // kMaxInt32, a constant of the module
	nodeBatchSize = 128 << 32        // kBatchSize, another
	nodeSlots     = 16               // at most between them and randomCache
)

func reference(w uint64) bool { return w&3 == 1 }

// integers examines what may be the variables of the module, in the order in
// which it declares them: kMaxInt32 ... randomCache, randomCacheOffset,
// asyncCacheFillInProgress, asyncCachePendingTasks ... kBatchSize.
func (s *nodeSearch) integers(slots uint64) {
	if !s.integer.another(s.finder, "node's bytes for crypto.randomInt") {
		return
	}
	w := s.words(slots, 2*nodeSlots)
	if w == nil {
		return
	}
	for i := 1; i < nodeSlots; i++ {
		offset := w[i+1] >> 32
		if reference(w[i]) && uint32(w[i+1]) == 0 && offset <= nodeIntegerBytes && offset%nodeIntegerStep == 0 &&
			reference(w[i+2]) && reference(w[i+3]) && slices.Contains(w[i+3:i+nodeSlots], nodeBatchSize) {
			s.integerCache(w[i] - 1)
		}
	}
}

// integerCache examines what may be the Uint8Array randomCache: it has the
// right length, and a word in common with its buffer: where the bytes are.
func (s *nodeSearch) integerCache(array uint64) {
	const fields, buffer = 12, 3
	w := s.words(array, fields)
	if w == nil || !slices.Contains(w, nodeIntegerBytes) || !reference(w[buffer]) {
		return
	}
	of := s.words(w[buffer]-1, fields)
	if of == nil || !slices.Contains(of, nodeIntegerBytes) {
		return
	}
	for _, data := range w {
		if data%16 == 0 && slices.Contains(of, data) && s.random(data, nodeIntegerBytes) {
			s.add(Place{Kind: KindBytes, Addr: proc.Addr(data), LenBytes: nodeIntegerBytes})
		}
	}
}
