package memory

import "torpor/block"

// firstSpan cuts r where another lock begins.
func firstSpan(r block.Range) block.Range {
	r.LenBytes = min(r.LenBytes, spanBytes-int64(r.Start)%spanBytes)
	return r
}

func (d *Device) area(off block.Offset) *area { return &d.areas[off/spanBytes%areaCount] }

// eachPage calls f with the pages of a span: number, and the piece of r in it,
// from and to within the page.
func eachPage(r block.Range, f func(page int64, from, to int)) {
	for r.LenBytes > 0 {
		from := int64(r.Start) % pageBytes
		n := min(r.LenBytes, pageBytes-from)
		f(int64(r.Start)/pageBytes, int(from), int(from+n))
		r = block.Range{Start: r.Start + block.Offset(n), LenBytes: r.LenBytes - n}
	}
}

func (d *Device) readSpan(b []byte, off block.Offset) {
	a := d.area(off)
	a.mu.RLock()
	defer a.mu.RUnlock()
	eachPage(block.Range{Start: off, LenBytes: int64(len(b))}, func(page int64, from, to int) {
		if content := a.pages[page]; content != nil {
			copy(b, content[from:to])
		} else {
			clear(b[:to-from])
		}
		b = b[to-from:]
	})
}

func (d *Device) writeSpan(b []byte, off block.Offset) {
	a := d.area(off)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pages == nil {
		a.pages = map[int64]*[pageBytes]byte{}
	}
	eachPage(block.Range{Start: off, LenBytes: int64(len(b))}, func(page int64, from, to int) {
		content := a.pages[page]
		if content == nil {
			content = new([pageBytes]byte)
			a.pages[page] = content
		}
		copy(content[from:to], b)
		b = b[to-from:]
	})
}

func (d *Device) clearSpan(r block.Range) {
	a := d.area(r.Start)
	a.mu.Lock()
	defer a.mu.Unlock()
	eachPage(r, func(page int64, from, to int) {
		content := a.pages[page]
		if content == nil {
			return
		}
		clear(content[from:to])
		if *content == ([pageBytes]byte{}) {
			delete(a.pages, page)
		}
	})
}

func (d *Device) spanStatus(extents []block.Extent, r block.Range) []block.Extent {
	a := d.area(r.Start)
	a.mu.RLock()
	defer a.mu.RUnlock()
	eachPage(r, func(page int64, from, to int) {
		kind := block.Hole
		if a.pages[page] != nil {
			kind = block.Data
		}
		at := block.Offset(page*pageBytes + int64(from))
		extents = block.AppendExtent(extents, block.Range{Start: at, LenBytes: int64(to - from)}, kind)
	})
	return extents
}
