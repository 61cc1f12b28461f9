package unique

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"torpor/kernel/proc"
)

// fuzzBase is where the fuzzer's bytes are, in a process that has nothing else.
const fuzzBase = 0x10000

// fuzzFinder reads bytes as the memory of a process.
func fuzzFinder(b []byte) *finder {
	end := fuzzBase + (uint64(len(b))+proc.PageBytes-1)&^(proc.PageBytes-1)
	memory := make([]byte, end-fuzzBase)
	copy(memory, b)
	read := func(to []byte, addr proc.Addr) error {
		at := uint64(addr) - fuzzBase
		if uint64(addr) < fuzzBase || at+uint64(len(to)) > uint64(len(memory)) {
			return errors.New("not there")
		}
		copy(to, memory[at:])
		return nil
	}
	vma := proc.VMA{Start: fuzzBase, End: proc.Addr(end), Prot: proc.ProtRead | proc.ProtWrite, Inode: 1, Name: "/program"}
	return &finder{space: newSpace(read), vmas: []proc.VMA{vma}, headers: fuzzBase, spec: new(Spec), known: map[proc.Addr]bool{}}
}

// checkPlaces wants every place to be inside of the memory.
func checkPlaces(t *testing.T, f *finder) {
	for _, p := range f.spec.Places {
		v := &f.vmas[0]
		if p.Addr < v.Start || p.Addr > v.End || p.size() > uint64(v.End-p.Addr) {
			t.Fatalf("place %+v is outside of %s", p, v)
		}
	}
}

// FuzzObject reads ELF headers, symbols, build information and what the symbols
// lead to.
func FuzzObject(f *testing.F) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self[:1<<14])
	f.Add(fuzzELF())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		finder := fuzzFinder(b)
		finder.objects = findObjects(finder.space, finder.vmas)
		finder.openssl()
		finder.libraries()
		for _, s := range []search{finder.golang(), finder.python(), finder.node(), finder.java()} {
			_ = s
		}
		for _, o := range finder.objects {
			o.symbol("RAND_poll")
			h := newHotspot(finder, o)
			for klass := range h.classes() {
				h.fields(klass)
			}
		}
		checkPlaces(t, finder)
	})
}

// fuzzELF is a file with a dynamic section and both hash tables, which lead to
// the symbol "RAND_poll".
func fuzzELF() []byte {
	b := make([]byte, 0x400)
	copy(b, "\x7fELF\x02\x01")
	put := func(at int, words ...uint64) {
		for i, w := range words {
			binary.LittleEndian.PutUint64(b[at+8*i:], w)
		}
	}
	put(32, elfHeaderBytes)
	binary.LittleEndian.PutUint16(b[56:], 2)
	binary.LittleEndian.PutUint32(b[elfHeaderBytes:], elfProgramLoad)
	binary.LittleEndian.PutUint32(b[elfHeaderBytes+elfProgramBytes:], elfProgramDynamic)
	put(elfHeaderBytes+elfProgramBytes+16, 0x100)
	put(0x100, elfDynamicSymbols, 0x200, elfDynamicStrings, 0x280, elfDynamicGNUHash, 0x300, elfDynamicHash, 0x380)
	put(0x200+elfSymbolBytes, 1|2<<32|1<<48, 0x150)
	copy(b[0x281:], "RAND_poll\x00")
	sum := uint32(5381)
	for _, c := range []byte("RAND_poll") {
		sum = sum*33 + uint32(c)
	}
	put(0x300, 1|1<<32, 0, 1|uint64(sum|1)<<32)
	put(0x380, 1|2<<32, 1)
	return b
}

// FuzzSearch shows all searches some memory.
func FuzzSearch(f *testing.F) {
	f.Add(append(stateOf(42, 10), newChaCha8(newGenerator())...))
	numbers, state := newV8Math(newGenerator(), 52)
	seed := binary.LittleEndian.AppendUint64(nil, v8CacheLength)
	seed = append(seed, numbers...)
	seed = binary.LittleEndian.AppendUint64(seed, v8StateLength)
	f.Add(append(seed, state...))
	words := []uint64{fuzzBase, nodeUUIDBytes, nodeUUIDBytes, fuzzBase, nodeMaxInt32, fuzzBase | 1, 0, fuzzBase | 1, fuzzBase | 1, nodeBatchSize, 3 | 31<<32, 3, drand48Factor}
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		f := fuzzFinder(b)
		searches := []search{
			&libcSearch{finder: f}, &goSearch{finder: f, rounds: 10}, &pythonTypes{finder: f, meta: fuzzBase + 8},
			&pythonObjects{pythonTypes: &pythonTypes{finder: f, found: []uint64{fuzzBase, fuzzBase + 64}, names: []string{pyRandomName, numpyPhilox}}},
			&nodeSearch{v8Search: v8Search{finder: f, states: map[uint64][]uint64{}}},
			fuzzHeap(f),
		}
		all := make([]byte, f.vmas[0].Len())
		f.read(all, fuzzBase)
		for _, s := range searches {
			s.look(piece{addr: fuzzBase, b: all, n: len(all)})
			s.next()
		}
		checkPlaces(t, f)
		if _, err := f.spec.patches(newGenerator()); err != nil {
			t.Fatal(err)
		}
	})
}

// fuzzHeap is a heap of Java in which class 1 has all kinds of state.
func fuzzHeap(f *finder) *javaHeap {
	h := &javaHeap{hotspot: &hotspot{finder: f}, start: fuzzBase, end: uint64(f.vmas[0].End), valueAt: 16, atomic: 1, bytes: 2}
	h.classes = map[uint64]javaClass{1: {}, 2: {}}
	h.references = map[uint64][]uint64{1: {12}}
	h.interesting = map[uint64][]javaPart{1: {{16, 8, javaLong}, {12, 6, javaAtomic}, {12, 0, javaBytes}, {20, 4, javaNothing}}}
	h.filter[javaFilter(1)] = true
	return h
}

func FuzzFields(f *testing.F) {
	f.Add([]byte{2, 1, 3, 4, 13, 3, 1, 5, 6, 17, 9, 8, 1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, field := range newFields(b, func(n uint64) string { return string(rune(n)) }) {
			field.reference()
		}
	})
}

// TestSymbol looks a name up by both kinds of hash table.
func TestSymbol(t *testing.T) {
	for name, damage := range map[string]func(*object){
		"gnu": func(o *object) { o.hash = 0 }, "old": func(o *object) { o.gnuHash = 0 },
	} {
		f := fuzzFinder(fuzzELF())
		objects := findObjects(f.space, f.vmas)
		if len(objects) != 1 {
			t.Fatal("no object")
		}
		damage(objects[0])
		if got := objects[0].symbol("RAND_poll"); got != fuzzBase+0x150 {
			t.Errorf("%s: RAND_poll is at %x", name, got)
		}
		if got := objects[0].symbol("RAND_pull"); got != 0 {
			t.Errorf("%s: RAND_pull is at %x", name, got)
		}
	}
}

// TestGoVersion reads what the linker wrote.
func TestGoVersion(t *testing.T) {
	info := func(flags byte, text string) []byte {
		b := append(append([]byte("before "+goInfoMagic), 8, flags), make([]byte, goInfoVersion-goInfoFlags-1)...)
		return append(b, text...)
	}
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{info(2, "\x08go1.22.1 and more"), "go1.22.1"}, {info(0, "anything"), "go1.0 to go1.17"},
		{info(2, "\x7fgo1"), ""}, {info(2, ""), ""}, {nil, ""},
	} {
		if got := parseGoVersion(c.b); got != c.want {
			t.Errorf("version in %q is %q, want %q", c.b, got, c.want)
		}
	}
}
