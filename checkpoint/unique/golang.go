package unique

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"torpor/kernel/proc"
)

// The build information that the linker puts at the start of a Go program's
// data: magic, size of a pointer, flags, and behind 32 bytes the version.
const (
	goInfoMagic   = "\xff Go buildinf:"
	goInfoFlags   = 15
	goInfoInline  = 2 // flag: the version is a string with its length before
	goInfoVersion = 32
	goInfoWithin  = 1 << 20 // of the start of a mapping
	goLeastMinor  = 22      // math/rand has ChaCha8 since then
)

// golang looks for the generators of a Go program.
func (f *finder) golang() search {
	version := ""
	for _, o := range f.objects {
		if o.mapping.Start <= f.headers && f.headers < o.mapping.End {
			version = f.goVersion(o)
		}
	}
	if version == "" {
		return nil
	}
	f.share("go's seed of map hashes and hash/maphash seeds made so far")
	if minor := 0; !scanned(version, &minor) || minor < goLeastMinor {
		f.share("go's math/rand (" + version + ", before go1.22)")
	}
	return &goSearch{finder: f, rounds: laggedRoundsAll}
}

// scanned reads the number behind "go1.".
func scanned(version string, minor *int) bool {
	n, err := fmt.Sscanf(version, "go1.%d", minor)
	return err == nil && n == 1
}

// goVersion reads the version from the mappings of the executable's file.
func (f *finder) goVersion(o *object) string {
	for i := range f.vmas {
		v := &f.vmas[i]
		if v.Inode != o.mapping.Inode || v.Dev != o.mapping.Dev || v.Prot&proc.ProtExec != 0 {
			continue
		}
		b := make([]byte, min(v.Len(), goInfoWithin))
		if !f.read(b, uint64(v.Start)) {
			continue
		}
		if version := parseGoVersion(b); version != "" {
			return version
		}
	}
	return ""
}

// parseGoVersion finds the build information in the start of a mapping.
func parseGoVersion(b []byte) string {
	at := bytes.Index(b, []byte(goInfoMagic))
	if at < 0 || len(b)-at <= goInfoVersion {
		return ""
	}
	b = b[at:]
	if b[goInfoFlags]&goInfoInline == 0 {
		return "go1.0 to go1.17"
	}
	n, size := binary.Uvarint(b[goInfoVersion:])
	if size <= 0 || n > 64 || uint64(len(b)-goInfoVersion-size) < n {
		return ""
	}
	return string(b[goInfoVersion+size:][:n])
}

// goSearch looks for states of ChaCha8, which the runtime has one of for each
// thread and one for all, and of math/rand.NewSource.
type goSearch struct {
	*finder
	chacha, lagged tries
	rounds         int // of following states back that are left
}

// The fields of chacha8rand.State: 32 words of output, 4 of seed, then i, how
// many are taken, n, how many may be, and c, the block counter.
const (
	chachaBuffer  = 32
	chachaSeed    = 4
	chachaIndex   = 8 * (chachaBuffer + chachaSeed)
	chachaBytes   = chachaIndex + 12
	chachaReseed  = 4  // outputs of the last block that become the next seed
	chachaLast    = 12 // counter of the last block
	chachaCounter = 4  // step of the counter
)

func (s *goSearch) look(p piece) {
	const full, last = chachaBuffer, chachaBuffer - chachaReseed
	for i := 0; i < p.limit(16); i += 8 {
		switch w := p.word(i); {
		case w>>32 == full || w>>32 == last:
			if uint32(w) <= uint32(w>>32) && p.word(i+8)&3 == 0 {
				s.block(p.addr+uint64(i)-chachaIndex, int(w>>32), uint32(p.word(i+8)))
			}
		case w < laggedWords:
			if feed := p.word(i + 8); feed < laggedWords && (feed+laggedWords-w)%laggedWords == laggedBetween {
				s.source(p.addr + uint64(i))
			}
		}
	}
}

func (s *goSearch) next() search { return nil }

// block examines what may be a state of ChaCha8: the output must be what its
// seed and counter give.
func (s *goSearch) block(addr uint64, count int, counter uint32) {
	if counter > chachaLast || (counter == chachaLast) != (count == chachaBuffer-chachaReseed) ||
		!s.chacha.another(s.finder, "go's math/rand") {
		return
	}
	w := s.words(addr, chachaBuffer+chachaSeed)
	if w == nil || w[0] == w[1] {
		return
	}
	block := chachaBlock([chachaSeed]uint64(w[chachaBuffer:]), counter)
	for i, want := range block[:count] {
		if w[i] != want {
			return
		}
	}
	s.add(Place{Kind: KindChaCha8, Addr: proc.Addr(addr)})
}

// chachaBlock returns the outputs of one block; of the last, the four that are
// never given out are left zero.
func chachaBlock(seed [chachaSeed]uint64, counter uint32) [chachaBuffer]uint64 {
	state := binary.BigEndian.AppendUint64([]byte("chacha8:"), uint64(counter/chachaCounter*chachaBuffer))
	for _, w := range seed {
		state = binary.LittleEndian.AppendUint64(state, w)
	}
	var generator rand.ChaCha8
	var block [chachaBuffer]uint64
	if generator.UnmarshalBinary(state) != nil {
		return block
	}
	count := chachaBuffer
	if counter == chachaLast {
		count -= chachaReseed
	}
	for i := range count {
		block[i] = generator.Uint64()
	}
	return block
}

// source examines what may be a rngSource.
func (s *goSearch) source(addr uint64) {
	const what = "states of go's math/rand.NewSource"
	const places = 16
	b := make([]byte, laggedBytes)
	if !s.lagged.another(s.finder, what) || !s.read(b, addr) || !looksRandom(b[places:]) {
		return
	}
	l := parseLagged(b)
	if l == nil {
		return
	}
	rounds, ok := l.fromSeed(min(laggedRounds, s.rounds))
	s.rounds -= rounds
	if !ok {
		s.share(what + " that gave more than a million numbers, if there are any")
		return
	}
	s.add(Place{Kind: KindBytes, Addr: proc.Addr(addr + places), LenBytes: 8 * laggedWords})
}
