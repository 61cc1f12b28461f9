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
)

// Fields of _random.Random, which no version changed.
const (
	pyRandomIndex     = 16
	pyRandomBytes     = 2520 // tp_basicsize
	pyRandomMostBytes = 4096 // with what subclasses add
	pyRandomName      = "_random.Random"
)

// python looks for the objects of random.Random and classes made of it, if
// the interpreter is CPython.
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

// pythonTypes looks for the class and its subclasses: for objects whose type
// is `type`, of the right size, that say which class they are made of.
type pythonTypes struct {
	*finder
	tries
	meta  uint64
	found []uint64
}

func (s *pythonTypes) look(p piece) {
	const ahead = pyTypeBasicSize - pyObjectType
	for i := 0; i < p.limit(ahead+8); i += 8 {
		if p.word(i) != s.meta {
			continue
		}
		if size := p.word(i + ahead); size >= pyRandomBytes && size <= pyRandomMostBytes {
			s.class(p.addr + uint64(i) - pyObjectType)
		}
	}
}

func (s *pythonTypes) class(addr uint64) {
	if len(s.found) >= pyMostTypes || !s.another(s.finder, "python's random") ||
		s.word(addr+pyTypeFlags)&pyFlagGC == 0 || !s.isRandom(addr) {
		return
	}
	s.found = append(s.found, addr)
}

// isRandom follows the first bases of a class.
func (s *pythonTypes) isRandom(class uint64) bool {
	for range pyMostBases {
		if class == 0 {
			return false
		}
		if s.isString(s.word(class+pyTypeName), pyRandomName) {
			return true
		}
		class = s.word(class + pyTypeBase)
	}
	return false
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
			if slices.Contains(s.found, w) {
				s.object(p.addr + uint64(i) - pyObjectType)
			}
		}
	}
}

func (s *pythonObjects) next() search { return nil }

// object examines what may be an instance, or any other reference to the
// class. The garbage collector links an object to its neighbours in both
// directions while it lives; one that was freed is not linked any more. (It
// does not know instances of _random.Random itself, which nobody makes.)
func (s *pythonObjects) object(addr uint64) {
	if !s.tries.another(s.finder, "python's random") || s.uint32(addr+pyRandomIndex) > mtWords || !s.linked(addr) {
		return
	}
	state := make([]byte, 4*mtWords)
	if s.word(addr) == 0 || !s.read(state, addr+pyRandomIndex+4) || !looksRandom(state) {
		return
	}
	s.add(Place{Kind: KindMT19937, Addr: proc.Addr(addr + pyRandomIndex)})
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
