package logvolume

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/trace"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the power cut test; 0: a random one")

// stamped is a volume whose blocks say which operation wrote them.
type stamped struct {
	t       *testing.T
	rnd     *rand.Rand
	blocks  int
	ops     []stampedOp
	flushed int // operations up to this one are durable
}

// stampedOp changes blocks [start, start+count) to its number, or to 0.
type stampedOp struct {
	start, count int
	discard      bool
	began, ended int // points of the recording
	flushed      int // operations durable when it ended
}

// content is what block at holds after operation op.
func content(p []byte, op, at int) {
	rnd := rand.New(rand.NewPCG(uint64(op), uint64(at)))
	binary.LittleEndian.PutUint32(p, uint32(op))
	for i := 8; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rnd.Uint64())
	}
}

// step does one operation.
func (s *stamped) step(v block.Device, points func() int) {
	if err := s.try(v, points); err != nil {
		s.t.Fatal(err)
	}
}

// try does one operation. Numbers begin with 1. One that returns an error may
// have been done, but is not durable.
func (s *stamped) try(v block.Device, points func() int) error {
	op := stampedOp{began: points(), count: 1}
	if s.rnd.IntN(3) == 0 {
		op.count = 1 + s.rnd.IntN(300)
	}
	op.start = s.rnd.IntN(s.blocks - op.count + 1)
	op.discard = s.rnd.IntN(10) == 0
	var flags block.Flags
	if s.rnd.IntN(5) == 0 {
		flags = block.FUA
	}
	number := len(s.ops) + 1
	var err error
	if op.discard {
		err = v.Discard(block.Range{Start: block.Offset(op.start) * 4096, LenBytes: int64(op.count) * 4096}, flags)
	} else {
		p := make([]byte, op.count*4096)
		for i := range op.count {
			content(p[i*4096:(i+1)*4096], number, op.start+i)
		}
		err = v.WriteAt(p, block.Offset(op.start)*4096, flags)
	}
	// A log keeps the order: what is durable has all before it.
	if flags == block.FUA && err == nil {
		s.flushed = number
	}
	op.ended, op.flushed = points(), s.flushed
	s.ops = append(s.ops, op)
	return err
}

// versions reads which operation each block is of, and checks that it is whole.
func (s *stamped) versions(v block.Device) []int {
	s.t.Helper()
	p, want := make([]byte, s.blocks*4096), make([]byte, 4096)
	if err := v.ReadAt(p, 0); err != nil {
		s.t.Fatal(err)
	}
	zero := string(make([]byte, 4096))
	versions := make([]int, s.blocks)
	for i := range versions {
		b := p[i*4096 : (i+1)*4096]
		if string(b) == zero {
			continue
		}
		versions[i] = int(binary.LittleEndian.Uint32(b))
		content(want, versions[i], i)
		if string(b) != string(want) {
			s.t.Fatalf("block %d is torn, or another one", i)
		}
	}
	return versions
}

// isPrefix says whether versions are what all operations up to some number leave,
// not below those that were durable at a point, nor above those that had begun; the
// last one may be there in part.
func (s *stamped) isPrefix(versions []int, point int) error {
	durable, begun := 0, 0
	for i, op := range s.ops {
		if op.ended <= point {
			durable = max(durable, op.flushed)
		}
		if op.began <= point {
			begun = i + 1
		}
	}
	state := make([]int, s.blocks)
	wrong := 0
	for i := range state {
		if versions[i] != 0 {
			wrong++
		}
	}
	set := func(at, to int) {
		if versions[at] != state[at] {
			wrong--
		}
		state[at] = to
		if versions[at] != state[at] {
			wrong++
		}
	}
	for n := 0; ; n++ {
		if n >= durable && wrong == 0 {
			return nil
		}
		if n == begun {
			var differ []string
			for i := range state {
				if state[i] != versions[i] && len(differ) < 10 {
					differ = append(differ, fmt.Sprintf("%d: %d not %d", i, versions[i], state[i]))
				}
			}
			return fmt.Errorf("at point %d: the state is none between operations %d and %d: from the last %d blocks differ: %v", point, durable, begun, wrong, differ)
		}
		op, to := s.ops[n], n+1
		if op.discard {
			to = 0
		}
		if n >= durable {
			// In part: from the front on, for rows take changes in order.
			for i := range op.count {
				set(op.start+i, to)
				if wrong == 0 {
					return nil
				}
			}
			continue
		}
		for i := range op.count {
			set(op.start+i, to)
		}
	}
}

func traced(t *testing.T, disks []Disk) ([]Disk, *trace.Recording) {
	t.Helper()
	var devices []block.Device
	for _, d := range disks {
		devices = append(devices, d.Device)
	}
	group, err := trace.NewGroup(trace.Options{}, devices...)
	if err != nil {
		t.Fatal(err)
	}
	recorded := make([]Disk, len(disks))
	for i, d := range group {
		recorded[i] = Disk{disks[i].Name, d}
	}
	return recorded, group[0].Recording()
}

func cut(t *testing.T, r *trace.Recording, point int, rnd *rand.Rand) []Disk {
	t.Helper()
	devices, err := r.Cut(point, rnd)
	if err != nil {
		t.Fatal(err)
	}
	disks := make([]Disk, len(devices))
	for i, d := range devices {
		disks[i] = Disk{fmt.Sprintf("m%d", i), unclosed{d}}
	}
	return disks
}

// without removes up to n disks.
func without(rnd *rand.Rand, disks []Disk, n int) []Disk {
	left := append([]Disk(nil), disks...)
	rnd.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	return left[:len(left)-rnd.IntN(n+1)]
}

// TestPowerCut cuts the power of all disks at many points, takes some of them
// away, and cuts it again while the log recovers. What was flushed is there, and
// all is as after some number of operations.
func TestPowerCut(t *testing.T) {
	for _, layout := range [][2]int{{1, 0}, {4, 2}, {1, 2}} {
		t.Run(fmt.Sprintf("%d+%d", layout[0], layout[1]), func(t *testing.T) { powerCut(t, layout[0], layout[1]) })
	}
}

func powerCut(t *testing.T, k, m int) {
	watchdog(t, 2*time.Minute)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	disks := unclosable(memoryDisks(k+m, 16+24/k))
	if err := Create(disks, testSpec(k, m)); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, disks, Options{})
	if err := l.CreateVolume("v", 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	recorded, recording := traced(t, disks)
	l = mustOpen(t, recorded, Options{CheckpointBytes: 2 << 20})
	v, err := l.OpenVolume("v")
	if err != nil {
		t.Fatal(err)
	}
	s := &stamped{t: t, rnd: rnd, blocks: 1024}
	for range 250 {
		s.step(v, recording.Points)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		point := rnd.IntN(recording.Points() + 1)
		s.verify(cut(t, recording, point, rnd), m, point, 2)
	}
	s.verify(cut(t, recording, recording.Points(), rnd), m, recording.Points(), 0)
}

// verify opens what a power cut left, also once more after a cut of that.
func (s *stamped) verify(disks []Disk, m, point, depth int) {
	s.t.Helper()
	left := without(s.rnd, disks, m)
	recorded, recording := traced(s.t, left)
	quiet := Options{Events: func(Event) {}}
	l := mustOpen(s.t, recorded, quiet)
	v, err := l.OpenVolume("v")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.isPrefix(s.versions(v), point); err != nil {
		s.t.Fatal(err)
	}
	mustCheck(s.t, l)
	if err := l.Close(); err != nil {
		s.t.Fatal(err)
	}
	if depth > 0 && s.rnd.IntN(2) == 0 {
		s.verify(cut(s.t, recording, s.rnd.IntN(recording.Points()+1), s.rnd), 0, point, depth-1)
	}
}
