package devicetest

import (
	"bytes"
	"fmt"

	"torpor/block"
)

// startedReads is how many reads are under way at once: more than a queue may take.
const startedReads = 200

// testStartedReads begins many reads, and waits for none before all have begun.
// Half of their memory is aligned for direct I/O.
func (s *suite) testStartedReads() {
	content := s.noise(s.area)
	s.must(s.d.WriteAt(content, 0, 0))
	results := make(chan error, startedReads)
	for i := range startedReads {
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
	for range startedReads {
		s.must(<-results)
	}
	s.end()
}
