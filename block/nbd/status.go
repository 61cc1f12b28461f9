package nbd

import (
	"encoding/binary"

	"torpor/block"
)

const (
	// maxExtents are told in one reply; the client asks again for the rest.
	maxExtents = 1 << 14
	// maxStatusBytes is how far a device is asked at once.
	maxStatusBytes = 1 << 30
	// sparseReadBytes is the length from which on a read is worth to ask first
	// where holes are, and sparseHoleBytes that of holes that are worth a chunk.
	sparseReadBytes = 64 << 10
	sparseHoleBytes = 16 << 10
)

// blockStatus answers with the extents of base:allocation:
//
//	id of the context 4, n times: length 4, flags 4
func (t *terms) blockStatus(r *request) error {
	span := r.span()
	span.LenBytes = min(span.LenBytes, maxStatusBytes)
	extents, err := t.export.view.of(span).Status(span)
	if err != nil {
		return err
	}
	extents = within(extents, span)
	most := maxExtents
	if r.flags&flagReqOne != 0 {
		most = 1
	}
	extents = extents[:min(len(extents), most)]
	b := appendChunk(r.heads[:0], chunkDone, chunkBlockStatus, r.cookie, 4+8*len(extents))
	b = binary.BigEndian.AppendUint32(b, metaAllocationID)
	for _, e := range extents {
		b = binary.BigEndian.AppendUint32(b, uint32(e.LenBytes))
		b = binary.BigEndian.AppendUint32(b, stateOf(e.Kind))
	}
	r.heads = b
	r.vectors = append(r.vectors[:0], b)
	return nil
}

func stateOf(k block.Kind) uint32 {
	switch k {
	case block.Hole:
		return stateHole | stateZero
	case block.Zero:
		return stateZero
	}
	return 0
}

// within joins neighbours of one kind, in place, and makes what is not described
// of the range data.
func within(extents []block.Extent, span block.Range) []block.Extent {
	joined, end := extents[:0], span.Start
	for _, e := range extents {
		if e.Start != end || e.LenBytes <= 0 || e.End() > span.End() {
			break
		}
		end = e.End()
		if n := len(joined); n > 0 && joined[n-1].Kind == e.Kind {
			joined[n-1].LenBytes += e.LenBytes
		} else {
			joined = append(joined, e)
		}
	}
	if len(joined) == 0 {
		return []block.Extent{{Range: span, Kind: block.Data}}
	}
	return joined
}

// readSparse answers a read by chunks, without the bytes of large holes. It
// does nothing and returns false if there are none.
func (t *terms) readSparse(r *request) (done bool, err error) {
	extents, err := t.export.view.of(r.span()).Status(r.span())
	if err != nil {
		return false, nil // reading tells
	}
	chunks := sparse(within(extents, r.span()), r.span())
	if len(chunks) == 1 && chunks[0].Kind == block.Data {
		return false, nil
	}
	const headBytes = chunkHeadBytes + 12
	heads := make([]byte, 0, headBytes*len(chunks))
	r.vectors = r.vectors[:0]
	for i, c := range chunks {
		flags := uint16(0)
		if i == len(chunks)-1 {
			flags = chunkDone
		}
		start := len(heads)
		if c.Kind != block.Data {
			heads = appendChunk(heads, flags, chunkOffsetHole, r.cookie, 12)
			heads = binary.BigEndian.AppendUint64(heads, uint64(c.Start))
			heads = binary.BigEndian.AppendUint32(heads, uint32(c.LenBytes))
			r.vectors = append(r.vectors, heads[start:])
			continue
		}
		first := int64(c.Start) - int64(r.offset)
		data := r.data()[first : first+c.LenBytes]
		if err := t.export.view.of(c.Range).ReadAt(data, c.Start); err != nil {
			return false, err
		}
		heads = appendChunk(heads, flags, chunkOffsetData, r.cookie, 8+len(data))
		heads = binary.BigEndian.AppendUint64(heads, uint64(c.Start))
		r.vectors = append(r.vectors, heads[start:], data)
	}
	r.heads = heads
	return true, nil
}

// sparse makes extents of a read the chunks of its reply: small holes are read
// with the data beside them, and what the extents leave open is data.
func sparse(extents []block.Extent, span block.Range) []block.Extent {
	var chunks []block.Extent
	add := func(e block.Extent) {
		if n := len(chunks); n > 0 && chunks[n-1].Kind == e.Kind {
			chunks[n-1].LenBytes += e.LenBytes
			return
		}
		chunks = append(chunks, e)
	}
	end := span.Start
	for _, e := range extents {
		if e.LenBytes < sparseHoleBytes {
			e.Kind = block.Data
		}
		if e.Kind == block.Zero {
			e.Kind = block.Hole
		}
		add(e)
		end = e.End()
	}
	if end < span.End() {
		add(block.Extent{Range: block.Range{Start: end, LenBytes: int64(span.End() - end)}, Kind: block.Data})
	}
	return chunks
}
