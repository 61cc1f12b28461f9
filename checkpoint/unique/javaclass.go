package unique

import (
	"encoding/binary"
	"slices"
)

// Bounds of what is read of classes.
const (
	javaMostClasses = 1 << 18
	javaMostLoaders = 1 << 14
	javaMostSupers  = 64
	javaMostFields  = 1 << 12
	javaMostName    = 96 // of a class or a field that is looked for
)

// javaClass is a class as the JVM keeps it outside of the heap.
type javaClass struct {
	name  string // "java/util/Random", or its start
	super uint64 // address of the class it extends, 0: none
}

// javaField is a field that a class declares.
type javaField struct {
	name, signature string // "seed", "J"
	offset          uint64 // in the object; of a static one, in the object of class Class
	static          bool
}

// reference reports whether the field holds one.
func (f *javaField) reference() bool {
	return len(f.signature) > 0 && (f.signature[0] == 'L' || f.signature[0] == '[')
}

// classes lists all classes by address.
func (h *hotspot) classes() map[uint64]javaClass {
	all := map[uint64]javaClass{}
	loader := h.static("ClassLoaderDataGraph::_head")
	for range javaMostLoaders {
		if loader == 0 {
			break
		}
		klass := h.field(loader, "ClassLoaderData::_klasses")
		for klass != 0 && len(all) < javaMostClasses {
			if _, seen := all[klass]; seen {
				break
			}
			all[klass] = javaClass{h.symbolText(h.field(klass, "Klass::_name")), h.field(klass, "Klass::_super")}
			klass = h.field(klass, "Klass::_next_link")
		}
		loader = h.field(loader, "ClassLoaderData::_next")
	}
	return all
}

// symbolText reads a Symbol: its length, and the text behind.
func (h *hotspot) symbolText(at uint64) string {
	length, body := h.offsets["Symbol::_length"], h.offsets["Symbol::_body[0]"]
	b := make([]byte, body+javaMostName)
	if at == 0 || body < 2 || length > body-2 || body > javaMostName {
		return ""
	}
	if !h.read(b, at) && !h.read(b[:body+1], at) { // the last symbol of all may end before
		return ""
	}
	n := uint64(binary.LittleEndian.Uint16(b[length:]))
	return string(b[body : body+min(n, javaMostName)])
}

// fields lists what a class declares, without what it inherits.
func (h *hotspot) fields(klass uint64) []javaField {
	pool := h.field(klass, "InstanceKlass::_constants")
	name := func(index uint64) string {
		if index >= 1<<16 {
			return ""
		}
		return h.symbolText(h.word(pool + h.sizes["ConstantPool"] + 8*index))
	}
	if table := h.field(klass, "InstanceKlass::_fields"); table != 0 {
		return h.oldFields(table, uint64(uint16(h.field(klass, "InstanceKlass::_java_fields_count"))), name)
	}
	stream := h.field(klass, "InstanceKlass::_fieldinfo_stream")
	b := make([]byte, min(h.uint32(stream), 1<<16))
	if len(b) == 0 || !h.read(b, stream+h.offsets["Array<u1>::_data"]) {
		return nil
	}
	return newFields(b, name)
}

// oldFields reads the table of Java before 21: six half words a field.
func (h *hotspot) oldFields(table, count uint64, name func(uint64) string) []javaField {
	const entry, tagBits = 12, 2
	b := make([]byte, entry*min(count, javaMostFields))
	if len(b) == 0 || !h.read(b, table+h.offsets["Array<u2>::_data"]) {
		return nil
	}
	var all []javaField
	for ; len(b) > 0; b = b[entry:] {
		all = append(all, javaField{
			name: name(uint64(binary.LittleEndian.Uint16(b[2:]))), signature: name(uint64(binary.LittleEndian.Uint16(b[4:]))),
			offset: uint64(binary.LittleEndian.Uint32(b[8:]) >> tagBits), static: b[0]&javaStatic != 0,
		})
	}
	return all
}

// javaStatic is the access flag ACC_STATIC.
const javaStatic = 8

// newFields decodes the stream of Java 21 and later: the counts of fields of
// the class and of the JVM, and for each name, signature, offset, access and
// flags, which say what else follows.
func newFields(b []byte, name func(uint64) string) []javaField {
	const initialised, generic, contended = 1, 4, 16
	r := &numberReader{b: b}
	count, _ := r.next(), r.next()
	var all []javaField
	for range min(count, javaMostFields) {
		f := javaField{name: name(r.next()), signature: name(r.next()), offset: r.next()}
		f.static = r.next()&javaStatic != 0
		flags := r.next()
		for _, more := range []uint64{initialised, generic, contended} {
			if flags&more != 0 {
				r.next()
			}
		}
		if r.failed {
			break
		}
		all = append(all, f)
	}
	return all
}

// numberReader decodes the JVM's UNSIGNED5: up to five digits of base 64, the
// lowest first, each plus 1, all but the last one plus another 191.
type numberReader struct {
	b      []byte
	failed bool
}

func (r *numberReader) next() uint64 {
	const most, base, least, shift = 5, 191, 1, 6
	sum := uint64(0)
	for i := range most {
		if len(r.b) == 0 || r.b[0] < least {
			r.failed = true
			return 0
		}
		digit := r.b[0]
		r.b = r.b[1:]
		sum += uint64(digit-least) << (shift * i)
		if digit < base+least {
			break
		}
	}
	return sum
}

// lineage lists a class and those it extends.
func lineage(classes map[uint64]javaClass, klass uint64) []uint64 {
	var line []uint64
	for klass != 0 && len(line) < javaMostSupers && !slices.Contains(line, klass) {
		line = append(line, klass)
		klass = classes[klass].super
	}
	return line
}
