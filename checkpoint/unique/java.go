package unique

import (
	"slices"

	"torpor/kernel/proc"
)

// javaWhat says what a field holds and so what is overwritten.
type javaWhat int

const (
	javaLong    javaWhat = iota // 8 random bytes
	javaAtomic                  // refers to an AtomicLong: that of Random has 48 bits
	javaBytes                   // refers to a byte[]
	javaNothing                 // an int or boolean: 0, as if nothing was left over
)

// javaStates are the fields in which random state is.
var javaStates = []struct {
	class, field string
	what         javaWhat
	lenBytes     uint64
}{
	{"java/util/Random", "seed", javaAtomic, 6},
	{"java/util/Random", "haveNextNextGaussian", javaNothing, 1},
	{"java/lang/Thread", "threadLocalRandomSeed", javaLong, 8},
	{"java/util/concurrent/ThreadLocalRandom", "seeder", javaAtomic, 8},
	{"java/util/SplittableRandom", "seed", javaLong, 8},
	{"java/util/SplittableRandom", "defaultGen", javaAtomic, 8},
	{"sun/security/provider/HashDrbg", "v", javaBytes, 0},
	{"sun/security/provider/HashDrbg", "c", javaBytes, 0},
	{"sun/security/provider/HmacDrbg", "v", javaBytes, 0},
	{"sun/security/provider/HmacDrbg", "k", javaBytes, 0},
	{"sun/security/provider/CtrDrbg", "v", javaBytes, 0},
	{"sun/security/provider/CtrDrbg", "k", javaBytes, 0},
	{"sun/security/provider/SecureRandom", "state", javaBytes, 0},
	{"sun/security/provider/SecureRandom", "remCount", javaNothing, 4},
	{"sun/security/provider/NativePRNG$RandomIO", "buffered", javaNothing, 4},
}

// Words for what can not be renewed.
const (
	javaRandoms = "java's Random, Math.random, ThreadLocalRandom, SplittableRandom, SecureRandom \"DRBG\" and \"SHA1PRNG\""
	javaOthers  = "java's order of immutable collections"
)

// java looks for the random state of a HotSpot JVM, in the fields of objects.
func (f *finder) java() search {
	o := f.exports("gHotSpotVMStructs", "gHotSpotVMTypes")
	if o == nil {
		return nil
	}
	f.share(javaOthers)
	h := &javaHeap{hotspot: newHotspot(f, o), interesting: map[uint64][]javaPart{}}
	if !h.open() {
		f.share(javaRandoms)
		return nil
	}
	h.chooseClasses()
	return h
}

// javaPart is a field of an object to be renewed.
type javaPart struct {
	offset, lenBytes uint64
	what             javaWhat
}

// javaHeap looks for the objects.
type javaHeap struct {
	*hotspot
	tries
	classes     map[uint64]javaClass
	start, end  uint64 // of the heap
	oopBase     uint64
	oopShift    uint64
	klassBase   uint64
	klassShift  uint64
	interesting map[uint64][]javaPart // classes whose objects have state
	references  map[uint64][]uint64   // offsets of all references in them
	filter      [javaFilterBits]bool  // by javaFilter of their narrow address
	atomic      uint64                // class AtomicLong
	valueAt     uint64                // offset of its value
	bytes       uint64                // class byte[]
}

const javaFilterBits = 1 << 12

// javaFilter is a hash for a first look.
func javaFilter(narrow uint32) uint32 { return narrow * 0x9e3779b1 >> 20 }

// open reads where the heap is. References and classes must be 32-bit
// numbers, as they are with any collector but ZGC and heaps up to 32 GB.
func (h *javaHeap) open() bool {
	heap := h.static("Universe::_collectedHeap")
	reserved := heap + h.offsets["CollectedHeap::_reserved"]
	h.start = h.field(reserved, "MemRegion::_start")
	h.end = h.start + 8*h.field(reserved, "MemRegion::_word_size")
	h.oopBase = h.static("CompressedOops::_narrow_oop._base", "CompressedOops::_base")
	h.oopShift = uint64(uint32(h.static("CompressedOops::_narrow_oop._shift", "CompressedOops::_shift")))
	h.klassBase = h.static("CompressedKlassPointers::_narrow_klass._base", "CompressedKlassPointers::_base")
	h.klassShift = uint64(uint32(h.static("CompressedKlassPointers::_narrow_klass._shift", "CompressedKlassPointers::_shift")))
	return heap != 0 && h.start != 0 && h.start < h.end && h.oopShift < 32 && h.klassShift < 32 &&
		h.flag("UseCompressedOops") && h.flag("UseCompressedClassPointers") && !h.flag("UseCompactObjectHeaders")
}

// chooseClasses finds the classes of javaStates and those that extend them.
func (h *javaHeap) chooseClasses() {
	h.classes, h.references = h.hotspot.classes(), map[uint64][]uint64{}
	named := map[string]uint64{}
	for klass, c := range h.classes {
		if c.name == "[B" || slices.Contains([]string{"java/util/concurrent/atomic/AtomicLong"}, c.name) || isJavaState(c.name) {
			if _, twice := named[c.name]; !twice {
				named[c.name] = klass
			}
		}
	}
	h.atomic, h.bytes = named["java/util/concurrent/atomic/AtomicLong"], named["[B"]
	for _, f := range h.fields(h.atomic) {
		if f.name == "value" {
			h.valueAt = f.offset
		}
	}
	parts := map[uint64][]javaPart{}
	for name, klass := range named {
		parts[klass] = h.parts(name, klass)
	}
	for klass := range h.classes {
		h.chooseClass(klass, parts)
	}
}

func isJavaState(class string) bool {
	for _, s := range javaStates {
		if s.class == class {
			return true
		}
	}
	return false
}

// parts finds the fields of one class; static ones are renewed at once.
func (h *javaHeap) parts(name string, klass uint64) []javaPart {
	var parts []javaPart
	fields := h.fields(klass)
	for _, s := range javaStates {
		i := slices.IndexFunc(fields, func(f javaField) bool { return s.class == name && f.name == s.field })
		if i < 0 {
			continue
		}
		part := javaPart{fields[i].offset, s.lenBytes, s.what}
		if !fields[i].static {
			parts = append(parts, part)
		} else if mirror := h.word(h.field(klass, "Klass::_java_mirror")); h.inHeap(mirror) {
			h.addPart(mirror, part)
		}
	}
	return parts
}

// chooseClass notes a class if it or one that it extends has state.
func (h *javaHeap) chooseClass(klass uint64, parts map[uint64][]javaPart) {
	line := lineage(h.classes, klass)
	var all []javaPart
	for _, k := range line {
		all = append(all, parts[k]...)
	}
	if len(all) == 0 {
		return
	}
	h.interesting[klass] = all
	h.filter[javaFilter(uint32((klass-h.klassBase)>>h.klassShift))] = true
	for _, k := range line {
		for _, f := range h.fields(k) {
			if !f.static && f.reference() {
				h.references[klass] = append(h.references[klass], f.offset)
			}
		}
	}
}

func (h *javaHeap) inHeap(addr uint64) bool { return addr >= h.start && addr < h.end && addr%8 == 0 }

// oop reads a reference.
func (h *javaHeap) oop(addr uint64) uint64 {
	if narrow := uint64(h.uint32(addr)); narrow != 0 {
		return h.oopBase + narrow<<h.oopShift
	}
	return 0
}

// klass is the class of an object.
func (h *javaHeap) klass(object uint64) uint64 {
	return h.klassBase + uint64(h.uint32(object+8))<<h.klassShift
}

func (h *javaHeap) look(p piece) {
	if p.addr+uint64(p.n) <= h.start || p.addr >= h.end {
		return
	}
	for i := 0; i < p.limit(16); i += 8 {
		narrow := uint32(p.word(i + 8))
		if !h.filter[javaFilter(narrow)] {
			continue
		}
		klass := h.klassBase + uint64(narrow)<<h.klassShift
		if parts, known := h.interesting[klass]; known && h.another(h.finder, javaRandoms) && h.isObject(p.addr+uint64(i), p.word(i), klass) {
			for _, part := range parts {
				h.addPart(p.addr+uint64(i), part)
			}
		}
	}
}

func (h *javaHeap) next() search { return nil }

// isObject examines what may be the two words at the start of an object: the
// mark has some bits that are never set, and every reference leads to an
// object of a class.
func (h *javaHeap) isObject(addr, mark, klass uint64) bool {
	const unlocked, hashEnd = 1, 42 // 39 before Java 24
	if mark>>47 != 0 || mark&3 == unlocked && mark>>hashEnd != 0 || !h.inHeap(addr) {
		return false
	}
	for _, offset := range h.references[klass] {
		object := h.oop(addr + offset)
		if object == 0 {
			continue
		}
		if _, known := h.classes[h.klass(object)]; !known || !h.inHeap(object) {
			return false
		}
	}
	return true
}

// addPart notes the place that a field is or leads to.
func (h *javaHeap) addPart(object uint64, part javaPart) {
	const lengthAt, dataAt, most = 12, 16, 1 << 12 // of arrays
	at := object + part.offset
	target := uint64(0)
	if part.what == javaAtomic || part.what == javaBytes {
		target = h.oop(at)
	}
	switch {
	case part.what == javaLong:
		h.add(Place{Kind: KindBytes, Addr: proc.Addr(at), LenBytes: part.lenBytes})
	case part.what == javaNothing:
		h.add(Place{Kind: KindZero, Addr: proc.Addr(at), LenBytes: part.lenBytes})
	case !h.inHeap(target):
	case part.what == javaAtomic && h.isSeed(target):
		h.add(Place{Kind: KindBytes, Addr: proc.Addr(target + h.valueAt), LenBytes: part.lenBytes})
	case part.what == javaBytes && h.klass(target) == h.bytes && h.uint32(target+lengthAt) <= most:
		h.add(Place{Kind: KindBytes, Addr: proc.Addr(target + dataAt), LenBytes: uint64(h.uint32(target + lengthAt))})
	}
}

// isSeed reports whether an object is an AtomicLong whose value is a seed. A
// dead object may refer to where another one, a counter perhaps, lives by now.
func (h *javaHeap) isSeed(object uint64) bool {
	const counters = 1 << 24
	return h.klass(object) == h.atomic && h.valueAt != 0 && h.word(object+h.valueAt) >= counters
}
