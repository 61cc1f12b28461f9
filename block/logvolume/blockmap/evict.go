package blockmap

// evictStep is how many frames the clock passes when a leaf is put in or becomes
// clean.
const evictStep = 128

// keepClean is how many clean leaves stay in any case. If the dirty ones alone
// were at the limit, those that a look-up needs at the same time, one for each layer
// of a chain, would otherwise evict each other for ever.
const keepClean = 512

// SetLimit says from how many bytes of leaves on clean ones are evicted; 0: never.
// Dirty leaves, and those that a Frozen has not written, stay. What is beyond the
// limit goes with the next calls of Put, Evict and Frozen.Written. 2 MiB of clean
// leaves stay in any case.
func (m *Map) SetLimit(limitBytes int64) { m.limitBytes = limitBytes }

func (m *Map) overLimit() bool {
	return m.limitBytes > 0 && int64(m.frames.used)*leafBytes > m.limitBytes && m.clean() > m.keepClean
}

// clean counts the leaves that may be evicted.
func (m *Map) clean() int {
	n := m.frames.used - m.dirty
	if m.frozen != nil {
		n -= m.frozen.unwritten
	}
	return n
}

// Evict lets the clock's hand pass at most so many frames, and evicts those that
// are clean and were not used since it came by the last time, until the limit is
// kept. It returns whether more remains to be done.
func (m *Map) Evict(steps int) bool {
	for ; steps > 0 && m.overLimit(); steps-- {
		m.hand++
		if int(m.hand/slabFrames) >= len(m.frames.slabs) {
			m.hand = 1
		}
		m.evictOne(m.hand)
	}
	return m.overLimit()
}

func (m *Map) evictOne(n frame) {
	o := *m.frames.owner(n)
	if o.layer == 0 {
		return
	}
	s := m.layer(o.layer).table.slot(o.index)
	switch {
	case s.state&(dirty|frozen) != 0:
	case s.state&referenced != 0:
		s.state &^= referenced
	default:
		s.frame = 0
		m.frames.release(n)
	}
}

// MemoryBytes is what the map takes: tables, and leaves with those that were
// freed and not given back yet.
func (m *Map) MemoryBytes() int64 { return m.frames.bytes() + m.tableBytes }

// DirtyBytes is what the next checkpoint will write, without what an open Frozen
// still has to.
func (m *Map) DirtyBytes() int64 { return int64(m.dirty) * leafBytes }

// LeavesInMemory counts leaves, with old copies that an open Frozen has.
func (m *Map) LeavesInMemory() int { return m.frames.used }
