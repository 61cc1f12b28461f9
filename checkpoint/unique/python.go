package unique

import (
	"slices"

	"torpor/kernel/proc"
)

// Fields of CPython's PyTypeObject and flags of types, the same since 3.8.
const (
	pyObjectType    = 8
	pyTypeName      = 24
	pyTypeBasicSize = 32
	pyTypeFlags     = 168
	pyTypeBase      = 256
	pyFlagGC        = 1 << 14
	pyMostBases     = 16
	pyMostTypes     = 64
	pyMostName      = 64 // of the names that are looked for
)

// Fields of _random.Random, which no version changed.
const (
	pyRandomIndex = 16
	pyRandomName  = "_random.Random"
)

// Bounds of tp_basicsize of the classes that are looked for: from numpy's
// smallest to a subclass of random.Random.
const (
	pyLeastBytes = 128
	pyMostBytes  = 4096
)

// pyClasses are those that have random state.
var pyClasses = []string{pyRandomName, numpyMT19937, numpyPCG64, numpyPCG64DXSM, numpyPhilox, numpySFC64}

// python looks for the objects of random.Random, of numpy's generators, and of
// classes made of them, if the interpreter is CPython.
func (f *finder) python() search {
	o := f.exports("PyType_Type", "PyModule_Type")
	if o == nil {
		return nil
	}
	if secret := o.symbol("_Py_HashSecret"); secret == 0 || f.word(secret) != 0 {
		f.share("python's seed of string hashes")
	}
	meta := o.symbol("PyType_Type")
	if f.word(meta+pyObjectType) != meta {
		f.share("python's random (objects of an unknown layout)")
		return nil
	}
	return &pythonTypes{finder: f, meta: meta}
}

// pythonTypes looks for the classes and their subclasses: for objects whose
// type is `type`, of the right size, that say which class they are made of.
type pythonTypes struct {
	*finder
	tries
	meta  uint64
	found []uint64
	names []string // which of pyClasses they are made of
}

func (s *pythonTypes) look(p piece) {
	const ahead = pyTypeBasicSize - pyObjectType
	for i := 0; i < p.limit(ahead+8); i += 8 {
		if p.word(i) != s.meta {
			continue
		}
		if size := p.word(i + ahead); size >= pyLeastBytes && size <= pyMostBytes {
			s.class(p.addr + uint64(i) - pyObjectType)
		}
	}
}

func (s *pythonTypes) class(addr uint64) {
	if len(s.found) >= pyMostTypes || !s.another(s.finder, "python's random") || s.word(addr+pyTypeFlags)&pyFlagGC == 0 {
		return
	}
	if name := s.madeOf(addr); name != "" {
		s.found, s.names = append(s.found, addr), append(s.names, name)
	}
}

// madeOf follows the first bases of a class to one of pyClasses.
func (s *pythonTypes) madeOf(class uint64) string {
	for range pyMostBases {
		if class == 0 {
			break
		}
		if name := s.text(s.word(class+pyTypeName), pyMostName); slices.Contains(pyClasses, name) {
			return name
		}
		class = s.word(class + pyTypeBase)
	}
	return ""
}

func (s *pythonTypes) next() search {
	if len(s.found) == 0 {
		return nil // nobody imported it
	}
	return &pythonObjects{pythonTypes: s}
}

// pythonObjects looks for instances of the classes.
type pythonObjects struct {
	*pythonTypes
	tries
}

func (s *pythonObjects) look(p piece) {
	least, most := slices.Min(s.found), slices.Max(s.found)
	for i := 0; i < p.limit(8); i += 8 {
		if w := p.word(i); w >= least && w <= most {
			if n := slices.Index(s.found, w); n >= 0 {
				s.object(p.addr+uint64(i)-pyObjectType, s.names[n])
			}
		}
	}
}

func (s *pythonObjects) next() search { return nil }

// object examines what may be an instance, or any other reference to the
// class. The garbage collector links an object to its neighbours in both
// directions while it lives; one that was freed is not linked any more. (It
// does not know instances of _random.Random itself, which nobody makes.)
func (s *pythonObjects) object(addr uint64, class string) {
	if !s.tries.another(s.finder, "python's random") || s.word(addr) == 0 || !s.linked(addr) {
		return
	}
	if class != pyRandomName {
		s.numpy(addr, class)
		return
	}
	state := make([]byte, 4*mtWords)
	if s.uint32(addr+pyRandomIndex) <= mtWords && s.read(state, addr+pyRandomIndex+4) && looksRandom(state) {
		s.add(Place{Kind: KindMT19937, Addr: proc.Addr(addr + pyRandomIndex)})
	}
}

// linked checks PyGC_Head, before the object: pointers to the next and the
// previous one, whose low bits are flags.
func (s *pythonObjects) linked(object uint64) bool {
	const flags = 3
	head := object - 16
	w := s.words(head, 2)
	return w != nil && w[0] > flags && w[1] > flags &&
		s.word(w[0]&^flags+8)&^flags == head && s.word(w[1]&^flags)&^flags == head
}
