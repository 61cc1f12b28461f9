package block

import "fmt"

// Check returns ErrRange or ErrAlignment if a request for r does not fit a
// device that is described by info.
func (info Info) Check(r Range) error {
	switch {
	case r.Start < 0 || r.LenBytes < 0 || int64(r.Start) > info.SizeBytes-r.LenBytes:
		return fmt.Errorf("range %d+%d of %d bytes: %w", r.Start, r.LenBytes, info.SizeBytes, ErrRange)
	case (int64(r.Start)|r.LenBytes)&int64(info.BlockBytes-1) != 0:
		return fmt.Errorf("range %d+%d in blocks of %d bytes: %w", r.Start, r.LenBytes, info.BlockBytes, ErrAlignment)
	}
	return nil
}

// CheckChange is Check for requests that change r: on a device that is
// read-only all are ErrReadOnly.
func (info Info) CheckChange(r Range) error {
	if info.ReadOnly {
		return ErrReadOnly
	}
	return info.Check(r)
}

// CheckVector is Check for a vector, whose buffers it adds up. Each of them must
// be a multiple of the block long.
func (info Info) CheckVector(p [][]byte, off Offset) (Range, error) {
	r := Range{Start: off}
	for _, b := range p {
		if len(b)&(info.BlockBytes-1) != 0 {
			return r, fmt.Errorf("buffer of %d bytes in blocks of %d bytes: %w", len(b), info.BlockBytes, ErrAlignment)
		}
		r.LenBytes += int64(len(b))
	}
	return r, info.Check(r)
}

// AppendExtent adds an extent that follows the ones of a status, or makes the
// last one longer if it is of the same kind. Empty ones are left out.
func AppendExtent(extents []Extent, r Range, kind Kind) []Extent {
	if r.LenBytes == 0 {
		return extents
	}
	if n := len(extents); n > 0 && extents[n-1].Kind == kind {
		extents[n-1].LenBytes += r.LenBytes
		return extents
	}
	return append(extents, Extent{r, kind})
}

// ReadVector fills p from a device that need not be a VectorDevice.
func ReadVector(d Device, p [][]byte, off Offset) error {
	if v, ok := d.(VectorDevice); ok {
		return v.ReadVectorAt(p, off)
	}
	for _, b := range p {
		if err := d.ReadAt(b, off); err != nil {
			return err
		}
		off += Offset(len(b))
	}
	return nil
}

// WriteVector writes p to a device that need not be a VectorDevice, then as
// several writes.
func WriteVector(d Device, p [][]byte, off Offset, flags Flags) error {
	if v, ok := d.(VectorDevice); ok {
		return v.WriteVectorAt(p, off, flags)
	}
	for _, b := range p {
		if err := d.WriteAt(b, off, flags); err != nil {
			return err
		}
		off += Offset(len(b))
	}
	return nil
}

// StartRead is that of an AsyncReader, or of any other device by a goroutine.
func StartRead(d Device, p []byte, off Offset, done func(error)) {
	if a, ok := d.(AsyncReader); ok {
		a.StartRead(p, off, done)
		return
	}
	go func() { done(d.ReadAt(p, off)) }()
}

// StartWrite is that of an AsyncWriter, or of any other device by a goroutine.
func StartWrite(d Device, p [][]byte, off Offset, flags Flags, done func(error)) {
	if a, ok := d.(AsyncWriter); ok {
		a.StartWrite(p, off, flags, done)
		return
	}
	go func() { done(WriteVector(d, p, off, flags)) }()
}

// Wait calls start with a done that it waits for, and returns what that is told.
func Wait(start func(done func(error))) error {
	result := make(chan error, 1)
	start(func(err error) { result <- err })
	return <-result
}
