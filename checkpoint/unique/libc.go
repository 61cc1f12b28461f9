package unique

import "torpor/kernel/proc"

// libcSearch looks for the generators of glibc: that of random and rand, and
// that of drand48. Those that a program keeps for random_r and drand48_r are
// left alone: nothing tells whether the memory they are in is still theirs.
type libcSearch struct {
	*finder
	tries
}

// The fields of glibc's struct random_data, as words: three pointers, two
// counts, the separation and the end. The first is searched by the counts.
const (
	randomCounts = 3
	randomWords  = 6
)

// randomCountsOf maps the counts (kind and degree) to the separation of the
// two places that are added.
var randomCountsOf = map[uint64]uint64{1 | 7<<32: 3, 2 | 15<<32: 1, 3 | 31<<32: 3, 4 | 63<<32: 1}

const (
	drand48Factor = 0x5deece66d
	drand48State  = 16         // bytes from the state to the factor
	drand48Rest   = 0x0001000b // addend 11, initialised
)

func (s *libcSearch) look(p piece) {
	for i := 0; i < p.limit(8); i += 8 {
		switch w := p.word(i); w {
		case 1 | 7<<32, 2 | 15<<32, 3 | 31<<32, 4 | 63<<32:
			s.random(p.addr + uint64(i) - 8*randomCounts)
		case drand48Factor:
			s.drand48(p.addr + uint64(i) - drand48State)
		}
	}
}

func (s *libcSearch) next() search { return nil }

// random examines what may be a struct random_data. Its pointers must agree
// with each other and with the counts.
func (s *libcSearch) random(addr uint64) {
	if !s.another(s.finder, "state of random()") || !s.isData(addr) {
		return
	}
	w := s.words(addr, randomWords)
	if w == nil {
		return
	}
	front, rear, state, end := w[0], w[1], w[2], w[5]
	degree, separation := w[randomCounts]>>32, randomCountsOf[w[randomCounts]]
	if uint64(uint32(w[4])) != separation || end != state+4*degree ||
		front-state >= 4*degree || rear-state >= 4*degree || (front-rear)%4 != 0 || state%4 != 0 {
		return
	}
	if ((front-state)/4+degree-(rear-state)/4)%degree == separation {
		s.add(Place{Kind: KindBytes, Addr: proc.Addr(state), LenBytes: 4 * degree})
	}
}

func (s *libcSearch) drand48(addr uint64) {
	if s.another(s.finder, "state of drand48()") && s.isData(addr) && s.word(addr+8)>>32 == drand48Rest {
		s.add(Place{Kind: KindBytes, Addr: proc.Addr(addr), LenBytes: 6})
	}
}

// isData reports whether addr is in the data of an ELF file: in a mapping of
// it, or in what continues that without a file.
func (s *libcSearch) isData(addr uint64) bool {
	for i := range s.vmas {
		v := &s.vmas[i]
		if addr < uint64(v.Start) || addr >= uint64(v.End) {
			continue
		}
		return v.Inode != 0 || i > 0 && s.vmas[i-1].End == v.Start && s.vmas[i-1].Inode != 0
	}
	return false
}
