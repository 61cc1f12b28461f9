package unique

// hotspot reads the tables in which the JVM describes its own structures for
// debuggers, and the structures by them.
type hotspot struct {
	*finder
	offsets map[string]uint64 // of fields, by "Type::field"
	statics map[string]uint64 // addresses of static fields
	sizes   map[string]uint64 // of types
}

// Bounds of the tables; those of Java 17 to 25 have some 2500 and 1000 entries.
const (
	hotspotMostEntries = 1 << 13
	hotspotMostName    = 128
	hotspotMostStride  = 256
)

// newHotspot reads the tables of a libjvm, nil if they are not as expected.
func newHotspot(f *finder, o *object) *hotspot {
	h := &hotspot{finder: f, offsets: map[string]uint64{}, statics: map[string]uint64{}, sizes: map[string]uint64{}}
	of := func(name string) uint64 { return f.word(o.symbol(name)) }
	kind, field := of("gHotSpotVMStructEntryTypeNameOffset"), of("gHotSpotVMStructEntryFieldNameOffset")
	static, offset := of("gHotSpotVMStructEntryIsStaticOffset"), of("gHotSpotVMStructEntryOffsetOffset")
	address := of("gHotSpotVMStructEntryAddressOffset")
	h.table(of("gHotSpotVMStructs"), of("gHotSpotVMStructEntryArrayStride"), kind, func(at uint64, name string) {
		name += "::" + f.text(f.word(at+field), hotspotMostName)
		if f.uint32(at+static) != 0 {
			h.statics[name] = f.word(at + address)
		} else {
			h.offsets[name] = f.word(at + offset)
		}
	})
	size := of("gHotSpotVMTypeEntrySizeOffset")
	h.table(of("gHotSpotVMTypes"), of("gHotSpotVMTypeEntryArrayStride"), of("gHotSpotVMTypeEntryTypeNameOffset"), func(at uint64, name string) {
		h.sizes[name] = f.word(at + size)
	})
	return h
}

// table calls each with every entry that has a name.
func (h *hotspot) table(at, stride, name uint64, each func(at uint64, name string)) {
	if stride == 0 || stride > hotspotMostStride {
		return
	}
	for range hotspotMostEntries {
		text := h.text(h.word(at+name), hotspotMostName)
		if text == "" {
			return
		}
		each(at, text)
		at += stride
	}
}

// field reads a word of a structure, 0 if the JVM has no such field.
func (h *hotspot) field(at uint64, name string) uint64 {
	offset, known := h.offsets[name]
	if !known {
		return 0
	}
	return h.word(at + offset)
}

// static reads a static field by the first of its names that the JVM knows: they
// changed between versions.
func (h *hotspot) static(names ...string) uint64 {
	for _, name := range names {
		if at, known := h.statics[name]; known {
			return h.word(at)
		}
	}
	return 0
}

// flag reads an option of the JVM.
func (h *hotspot) flag(name string) bool {
	at, size := h.static("JVMFlag::flags"), h.sizes["JVMFlag"]
	if size == 0 || size > hotspotMostStride {
		return false
	}
	for range hotspotMostEntries {
		switch h.text(h.field(at, "JVMFlag::_name"), hotspotMostName) {
		case "":
			return false
		case name:
			return byte(h.word(h.field(at, "JVMFlag::_addr"))) != 0
		}
		at += size
	}
	return false
}
