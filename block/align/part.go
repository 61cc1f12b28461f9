package align

import "torpor/block"

// around is the range of the large blocks that r touches.
func (d *Device) around(r block.Range) block.Range {
	mask := block.Offset(d.large - 1)
	start, end := r.Start&^mask, (r.End()+mask)&^mask
	if r.LenBytes == 0 {
		end = start
	}
	return block.Range{Start: start, LenBytes: int64(end - start)}
}

// eachPart calls f with the large blocks that are whole in r, which come first
// because the device below may refuse them, and with those at either end that
// are not.
func (d *Device) eachPart(r block.Range, f func(part block.Range, whole bool) error) error {
	if r.LenBytes == 0 {
		return nil
	}
	mask := block.Offset(d.large - 1)
	front, back := (r.Start+mask)&^mask, r.End()&^mask // of the whole ones
	if front > back {                                  // all is inside one
		return f(r, false)
	}
	parts := [3]block.Range{
		{Start: front, LenBytes: int64(back - front)},
		{Start: r.Start, LenBytes: int64(front - r.Start)},
		{Start: back, LenBytes: int64(r.End() - back)},
	}
	for i, part := range parts {
		if part.LenBytes == 0 {
			continue
		}
		if err := f(part, i == 0); err != nil {
			return err
		}
	}
	return nil
}

// partly calls f with the content of the large block that part is inside of: all
// of it, the part, and where the block begins.
func (d *Device) partly(part block.Range, f func(all, inside []byte, start block.Offset) error) error {
	memory := d.memory.Get().(*[]byte)
	defer d.memory.Put(memory)
	all := *memory
	start := part.Start &^ block.Offset(d.large-1)
	if err := d.below.ReadAt(all, start); err != nil {
		return err
	}
	return f(all, all[part.Start-start:][:part.LenBytes], start)
}
