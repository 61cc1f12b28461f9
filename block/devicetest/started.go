package devicetest

import (
	"bytes"
	"fmt"

	"torpor/block"
)

// started is how many requests are under way at once: more than a queue may take.
const started = 200

// testStartedReads begins many reads, and waits for none before all have begun.
// Half of their memory is aligned for direct I/O.
func (s *suite) testStartedReads() {
	content := s.noise(s.area)
	s.must(s.d.WriteAt(content, 0, 0))
	results := make(chan error, started)
	for i := range started {
		at := s.place(64 << 10)
		p := block.AlignedBuffer(int(at.LenBytes))
		if i%2 == 0 {
			p = s.memory(at.LenBytes)
		}
		block.StartRead(s.d, p, at.Start, func(err error) {
			if err == nil && !bytes.Equal(p, content[at.Start:at.End()]) {
				err = fmt.Errorf("read %d+%d: not what was written", at.Start, at.LenBytes)
			}
			results <- err
		})
	}
	for range started {
		s.must(<-results)
	}
	s.end()
}

// testStartedWrites begins many writes, of neighbouring ranges, and waits for none
// before all have begun. Some are vectors, some not aligned for direct I/O.
func (s *suite) testStartedWrites() {
	unit := int64(s.info.BlockBytes)
	each := max(s.area/started/unit, 1) * unit
	content := block.AlignedBuffer(int(min(s.area/each, started) * each))
	copy(content, s.noise(int64(len(content))))
	results := make(chan error, started)
	n := 0
	for off := int64(0); off < int64(len(content)); off += each {
		p := content[off : off+each]
		vector := [][]byte{p}
		switch n % 4 {
		case 0:
			vector = [][]byte{p[:unit], p[unit:]}
		case 1:
			own := s.memory(each)
			copy(own, p)
			vector = [][]byte{own}
		}
		block.StartWrite(s.d, vector, block.Offset(off), block.Flags(n%2)*block.FUA, func(err error) { results <- err })
		n++
	}
	for range n {
		s.must(<-results)
	}
	s.must(s.d.Flush())
	got := s.memory(int64(len(content)))
	s.must(s.d.ReadAt(got, 0))
	if !bytes.Equal(got, content) {
		s.Error("reads as something else than was written")
	}
	s.end()
}
