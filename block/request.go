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
