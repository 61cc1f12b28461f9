package nbd

import (
	"unsafe"

	"torpor/block"
)

// alignedBytes returns n zeroed bytes whose address is a multiple of a block.
func alignedBytes(n int) []byte {
	b := make([]byte, n+block.BlockBytes-1)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (block.BlockBytes - 1)
	return b[skip : skip+n : skip+n]
}
