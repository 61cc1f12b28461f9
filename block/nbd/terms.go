package nbd

import (
	"math/bits"

	"torpor/block"
)

// terms is what client and server have agreed on in the handshake.
type terms struct {
	export     *export
	flags      uint16 // transmission flags that the client was told
	sizeBytes  int64  // that the client was told
	blockBytes int    // that requests have to be multiples of; 1 unless sized
	structured bool
	meta       bool // base:allocation was chosen for this export
	sized      bool // the client asked for block sizes, so it heeds them
}

// blockSizes are the constraints of an export.
type blockSizes struct {
	minBytes, preferredBytes, maxBytes uint32
}

func blockSizesOf(info block.Info) blockSizes {
	preferred := max(info.PreferredBytes, info.BlockBytes, 4096)
	if preferred&(preferred-1) != 0 {
		preferred = 1 << bits.Len(uint(preferred))
	}
	return blockSizes{
		minBytes:       uint32(info.BlockBytes),
		preferredBytes: uint32(min(preferred, maxPayloadBytes)),
		maxBytes:       maxPayloadBytes,
	}
}

// flagsFor says what an export can do. All connections of an export see the
// same cache: what block.Device promises of Flush is what MULTI_CONN means.
func flagsFor(readOnly, structured bool) uint16 {
	const all = transmitHasFlags | transmitFlush | transmitFUA | transmitTrim | transmitWriteZeroes |
		transmitFastZero | transmitMultiConn | transmitCache
	flags := uint16(all)
	if readOnly {
		flags |= transmitReadOnly
	}
	if structured {
		flags |= transmitDF
	}
	return flags
}
