package blob

import "encoding/binary"

// Layout of the executables made here: one page at loadAddr that holds the ELF
// header, two program headers, parameters and code. loadAddr is the largest
// default of vm.mmap_min_addr.
const (
	loadAddr   = 0x10000
	headerLen  = 64 + 2*56
	ParamAddr  = loadAddr + headerLen // of the stub's parameters; 0x100b0 in blob_amd64.s
	paramBytes = 6 * 8
	codeOffset = 0x100
)

// StubParams tell the stub where to go; see blob_amd64.s.
type StubParams struct {
	AreaAddr   uint64 // where the area is mapped
	AreaBytes  uint64
	ScriptAddr uint64 // first entry the third process executes
	InterpAddr uint64 // the interpreter, inside the area
	NSFlags    uint64 // CLONE_NEW* flags for setns by pidfd; 0 joins none
	PID        uint64 // of the grandchild, in its pid namespace; 0: any
}

// StubELF returns an executable that maps descriptor 4 as the area, joins the
// namespaces of the pidfd 3, and leaves a grandchild that executes the script.
func StubELF(p StubParams) []byte {
	params := make([]byte, 0, paramBytes)
	for _, v := range []uint64{p.AreaAddr, p.AreaBytes, p.ScriptAddr, p.InterpAddr, p.NSFlags, p.PID} {
		params = binary.LittleEndian.AppendUint64(params, v)
	}
	return executable(params, text(stubAddr()))
}

// InitELF returns the executable that is pid 1 of every container. Its
// arguments are the application's; without any it only holds descriptors.
func InitELF() []byte { return executable(nil, text(init1Addr())) }

// executable makes a static ELF64 file (System V ABI, AMD64 supplement) of one
// read-execute segment and a stack that is not executable.
func executable(params, code []byte) []byte {
	size := codeOffset + len(code)
	b := make([]byte, size)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], loadAddr+codeOffset)
	le.PutUint64(b[32:], 64) // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	load := b[64:]
	le.PutUint32(load[0:], 1) // PT_LOAD
	le.PutUint32(load[4:], 5) // read, execute
	le.PutUint64(load[16:], loadAddr)
	le.PutUint64(load[24:], loadAddr)
	le.PutUint64(load[32:], uint64(size))
	le.PutUint64(load[40:], uint64(size))
	le.PutUint64(load[48:], 4096)
	stack := b[64+56:]
	le.PutUint32(stack[0:], 0x6474e551) // PT_GNU_STACK
	le.PutUint32(stack[4:], 6)          // read, write
	copy(b[headerLen:], params)
	copy(b[codeOffset:], code)
	return b
}
