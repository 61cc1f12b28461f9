package nbd

import (
	"fmt"

	"torpor/block"
)

// cacheStepBytes is how much of a CACHE request is read at once.
const cacheStepBytes = 256 << 10

// execute has the device do what a request says, and puts the reply into it.
func (t *terms) execute(r *request) {
	if r.refused != 0 {
		t.export.counts.refused.Add(1)
		r.fail(r.refused, fmt.Sprintf("command %d, flags %#x, at %d+%d of %d", r.command, r.flags, r.offset, r.lenBytes, t.sizeBytes), t.structured)
		return
	}
	var err error
	switch r.command {
	case commandRead:
		err = t.read(r)
	case commandBlockStatus:
		err = t.blockStatus(r)
	default:
		if err = t.change(r); err == nil {
			r.ok()
		}
	}
	if err != nil {
		t.export.counts.errors.Add(1)
		r.fail(errnoOf(err, r.header), err.Error(), t.structured)
	}
}

// change does what is answered by success only.
func (t *terms) change(r *request) error {
	view := t.export.view
	switch r.command {
	case commandFlush:
		return view.device.Flush()
	case commandCache:
		return t.cache(r.span())
	}
	return view.change(func(d block.Device) error { return t.changeOn(d, r) })
}

func (t *terms) changeOn(d block.Device, r *request) error {
	var flags block.Flags
	if r.flags&flagFUA != 0 {
		flags |= block.FUA
	}
	if r.flags&flagNoHole != 0 {
		flags |= block.KeepAllocated
	}
	if r.flags&flagFastZero != 0 {
		flags |= block.FastOnly
	}
	switch r.command {
	case commandWrite:
		return d.WriteAt(r.data(), block.Offset(r.offset), flags)
	case commandTrim:
		return d.Discard(r.inside(t.blockBytes), flags)
	case commandWriteZeroes:
		return d.Zero(r.span(), flags)
	}
	return block.ErrUnsupported
}

// cache reads a range, or its beginning if it is longer than a read may be, and
// drops it: what the device keeps of it is its matter.
func (t *terms) cache(span block.Range) error {
	span.LenBytes = min(span.LenBytes, maxPayloadBytes)
	b := newBuffer(cacheStepBytes)
	defer b.release()
	for span.LenBytes > 0 {
		n := min(span.LenBytes, cacheStepBytes)
		if err := t.export.view.of(span).ReadAt(b.data(int(n)), span.Start); err != nil {
			return err
		}
		span = block.Range{Start: span.Start + block.Offset(n), LenBytes: span.LenBytes - n}
	}
	return nil
}

func (t *terms) read(r *request) error {
	if t.structured && r.flags&flagDF == 0 && r.lenBytes >= sparseReadBytes {
		if done, err := t.readSparse(r); done || err != nil {
			return err
		}
	}
	if err := t.export.view.of(r.span()).ReadAt(r.data(), block.Offset(r.offset)); err != nil {
		return err
	}
	r.withData(t.structured)
	return nil
}
