package unique

import (
	"encoding/binary"
	"path"
	"strings"

	"torpor/kernel/proc"
)

// object is an ELF file that the process has mapped: its executable or a
// library. It is read from memory alone: the file may be gone, or be another.
type object struct {
	space
	name    string // DT_SONAME, else the last part of its path
	mapping *proc.VMA
	bias    uint64 // between addresses in the file and in memory
	symbols uint64 // DT_SYMTAB
	strings uint64 // DT_STRTAB
	gnuHash uint64 // DT_GNU_HASH, 0: none
	hash    uint64 // DT_HASH, 0: none
}

// Numbers of the ELF format.
const (
	elfHeaderBytes     = 64
	elfProgramBytes    = 56
	elfSymbolBytes     = 24
	elfProgramLoad     = 1
	elfProgramDynamic  = 2
	elfDynamicHash     = 4
	elfDynamicStrings  = 5
	elfDynamicSymbols  = 6
	elfDynamicSoname   = 14
	elfDynamicGNUHash  = 0x6ffffef5
	elfMostPrograms    = 256
	elfMostDynamic     = 1024
	elfMostChain       = 1 << 12
	elfSymbolTLS       = 6
	elfSymbolIndirect  = 10
	elfUndefinedSymbol = 0
)

// findObjects lists the ELF files among the mappings.
func findObjects(s space, vmas []proc.VMA) []*object {
	var all []*object
	for i := range vmas {
		v := &vmas[i]
		if v.Inode == 0 || v.Offset != 0 || v.Shared || v.Prot&proc.ProtRead == 0 {
			continue
		}
		if o := readObject(s, v); o != nil {
			all = append(all, o)
		}
	}
	return all
}

// readObject reads the headers at the start of a mapping, nil if there are none.
func readObject(s space, v *proc.VMA) *object {
	head := make([]byte, elfHeaderBytes)
	if !s.read(head, uint64(v.Start)) || string(head[:6]) != "\x7fELF\x02\x01" {
		return nil
	}
	offset, count := binary.LittleEndian.Uint64(head[32:]), int(binary.LittleEndian.Uint16(head[56:]))
	if count == 0 || count > elfMostPrograms || offset > v.Len() {
		return nil
	}
	programs := make([]byte, count*elfProgramBytes)
	if !s.read(programs, uint64(v.Start)+offset) {
		return nil
	}
	o := &object{space: s, mapping: v, name: path.Base(strings.TrimSuffix(v.Name, " (deleted)"))}
	dynamic, known := uint64(0), false
	for p := programs; len(p) > 0; p = p[elfProgramBytes:] {
		address := binary.LittleEndian.Uint64(p[16:])
		switch kind := binary.LittleEndian.Uint32(p); {
		case kind == elfProgramLoad && !known:
			o.bias, known = uint64(v.Start)-address&^(proc.PageBytes-1), true
		case kind == elfProgramDynamic:
			dynamic = address
		}
	}
	if known && dynamic != 0 {
		o.readDynamic(o.bias + dynamic)
	}
	return o
}

// readDynamic reads the table that says where symbols are.
func (o *object) readDynamic(addr uint64) {
	soname := uint64(0)
	for range elfMostDynamic {
		w := o.words(addr, 2)
		if w == nil || w[0] == 0 {
			break
		}
		switch addr += 16; w[0] {
		case elfDynamicSymbols:
			o.symbols = o.inMemory(w[1])
		case elfDynamicStrings:
			o.strings = o.inMemory(w[1])
		case elfDynamicGNUHash:
			o.gnuHash = o.inMemory(w[1])
		case elfDynamicHash:
			o.hash = o.inMemory(w[1])
		case elfDynamicSoname:
			soname = w[1]
		}
	}
	if name := o.text(o.strings+soname, 256); soname != 0 && name != "" {
		o.name = name
	}
}

// inMemory is the address of what the dynamic table points to. Glibc's loader
// has replaced addresses of the file by those in memory, others have not.
func (o *object) inMemory(addr uint64) uint64 {
	if addr < o.bias {
		return o.bias + addr
	}
	return addr
}

// symbol returns the address of an exported function or variable, 0 if there is
// none.
func (o *object) symbol(name string) uint64 {
	switch {
	case o.symbols == 0 || o.strings == 0:
		return 0
	case o.gnuHash != 0:
		return o.gnuSymbol(name)
	case o.hash != 0:
		return o.oldSymbol(name)
	}
	return 0
}

func (o *object) gnuSymbol(name string) uint64 {
	sum := uint32(5381)
	for _, c := range []byte(name) {
		sum = sum*33 + uint32(c)
	}
	w := o.words(o.gnuHash, 2)
	if w == nil || uint32(w[0]) == 0 {
		return 0
	}
	buckets, first, bloom := uint32(w[0]), uint32(w[0]>>32), uint64(uint32(w[1]))
	table := o.gnuHash + 16 + 8*bloom
	chains := table + 4*uint64(buckets)
	n := o.uint32(table + 4*uint64(sum%buckets))
	for i := 0; n >= first && n != 0 && i < elfMostChain; i, n = i+1, n+1 {
		h := o.uint32(chains + 4*uint64(n-first))
		if h|1 == sum|1 {
			if addr := o.named(n, name); addr != 0 {
				return addr
			}
		}
		if h&1 != 0 {
			break
		}
	}
	return 0
}

func (o *object) oldSymbol(name string) uint64 {
	sum := uint32(0)
	for _, c := range []byte(name) {
		sum = sum<<4 + uint32(c)
		sum = (sum ^ sum>>24&0xf0) & 0x0fffffff
	}
	buckets := o.uint32(o.hash)
	if buckets == 0 {
		return 0
	}
	chains := o.hash + 8 + 4*uint64(buckets)
	n := o.uint32(o.hash + 8 + 4*uint64(sum%buckets))
	for i := 0; n != 0 && i < elfMostChain; i++ {
		if addr := o.named(n, name); addr != 0 {
			return addr
		}
		n = o.uint32(chains + 4*uint64(n))
	}
	return 0
}

// named returns the address of symbol n if it is defined and has this name.
func (o *object) named(n uint32, name string) uint64 {
	w := o.words(o.symbols+elfSymbolBytes*uint64(n), 3)
	if w == nil || !o.isString(o.strings+uint64(uint32(w[0])), name) {
		return 0
	}
	kind, section := w[0]>>32&15, w[0]>>48
	if section == elfUndefinedSymbol || kind == elfSymbolTLS || kind == elfSymbolIndirect || w[1] == 0 {
		return 0
	}
	return o.bias + w[1]
}
