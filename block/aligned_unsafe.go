package block

import "unsafe"

// AlignedBuffer returns n zeroed bytes whose address is a multiple of
// BlockBytes, which is what direct I/O asks of memory everywhere.
func AlignedBuffer(n int) []byte {
	b := make([]byte, n+BlockBytes-1)
	skip := -addressOf(b) & (BlockBytes - 1)
	return b[skip : skip+n : skip+n]
}

// Aligned says whether the address of b is a multiple of BlockBytes.
func Aligned(b []byte) bool { return addressOf(b)&(BlockBytes-1) == 0 }

func addressOf(b []byte) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
