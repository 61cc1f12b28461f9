package blob

import (
	"bytes"
	"encoding/binary"
	"unsafe"
)

// Declared for the assembler's checks; never called.

//lint:ignore U1000 its code is copied
func interp()

//lint:ignore U1000 its code is copied
func stub()

//lint:ignore U1000 its code is copied
func init1()

func interpAddr() uintptr
func stubAddr() uintptr
func init1Addr() uintptr

// endMark is END_MARK of blob_amd64.s.
var endMark = binary.LittleEndian.AppendUint64(
	binary.LittleEndian.AppendUint64(nil, 0x646e65706f72742e), 0x2e6b72616d2e2e2e)

// text copies the machine code from addr up to its end mark.
func text(addr uintptr) []byte {
	const most = 4096
	// The address is of this binary's text, which does not move.
	code := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&addr))), most)
	end := bytes.Index(code, endMark)
	if end < 0 {
		panic("blob: code without an end mark")
	}
	return bytes.Clone(code[:end])
}

// Interpreter returns the code that executes scripts. Its entry is its first
// byte; R12 holds the address of the first script entry.
func Interpreter() []byte { return text(interpAddr()) }
