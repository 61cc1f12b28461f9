package logvolume

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
	"torpor/block/memory"
)

const testShardBytes = 256 << 10

// testSpec is small enough for segments to be cleaned often.
func testSpec(k, m int) Spec {
	return Spec{DataShards: k, ParityShards: m, ShardBytes: testShardBytes, StripeBytes: 128 << 10, JournalBytes: 256 << 10}
}

// memoryDisks makes disks of so many shards each.
func memoryDisks(n, shards int) []Disk {
	disks := make([]Disk, n)
	for i := range disks {
		d, err := memory.New(memory.Spec{SizeBytes: format.HeadBytes + 1<<20 + int64(shards)*testShardBytes, BlockBytes: 4096})
		if err != nil {
			panic(err)
		}
		disks[i] = Disk{Name: fmt.Sprintf("m%d", i), Device: d}
	}
	return disks
}

// unclosed keeps a device open when a log closes it.
type unclosed struct{ block.VectorDevice }

func (unclosed) Close() error { return nil }

func unclosable(disks []Disk) []Disk {
	kept := make([]Disk, len(disks))
	for i, d := range disks {
		kept[i] = Disk{d.Name, unclosed{d.Device.(block.VectorDevice)}}
	}
	return kept
}

func mustOpen(t testing.TB, disks []Disk, o Options) *Log {
	t.Helper()
	if o.Events == nil {
		o.Events = func(e Event) { t.Logf("event: %s", e.Reason) }
	}
	l, err := Open(disks, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newTestLog(t testing.TB, disks []Disk, spec Spec, volumeBytes int64) (*Log, *Volume) {
	t.Helper()
	if err := Create(disks, spec); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, disks, Options{})
	if err := l.CreateVolume("v", volumeBytes); err != nil {
		t.Fatal(err)
	}
	v, err := l.OpenVolume("v")
	if err != nil {
		t.Fatal(err)
	}
	return l, v
}

// model is what a volume should hold.
type model struct {
	rnd  *rand.Rand
	data []byte
}

func (m *model) randomRange(maxBlocks int) (off block.Offset, n int) {
	blocks := len(m.data) / 4096
	n = 1 + m.rnd.IntN(min(maxBlocks, blocks))
	if m.rnd.IntN(2) == 0 {
		n = 1
	}
	return block.Offset(m.rnd.IntN(blocks-n+1)) * 4096, n * 4096
}

func (m *model) step(t *testing.T, v block.Device) {
	t.Helper()
	off, n := m.randomRange(600)
	switch what := m.rnd.IntN(20); {
	case what < 10:
		p := make([]byte, n)
		fill(m.rnd, p)
		var flags block.Flags
		if m.rnd.IntN(4) == 0 {
			flags = block.FUA
		}
		if err := v.WriteAt(p, off, flags); err != nil {
			t.Fatal(err)
		}
		copy(m.data[off:], p)
	case what < 12:
		if err := v.Discard(block.Range{Start: off, LenBytes: int64(n)}, 0); err != nil {
			t.Fatal(err)
		}
		clear(m.data[off : int(off)+n])
	case what < 13:
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
	default:
		p := make([]byte, n)
		if err := v.ReadAt(p, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, m.data[off:int(off)+n]) {
			t.Fatalf("read %d bytes at %d: not what was written", n, off)
		}
	}
}

// fill makes blocks that differ, quickly.
func fill(rnd *rand.Rand, p []byte) {
	for i := 0; i < len(p); i += 512 {
		for j := 0; j < 8; j++ {
			p[i+j] = byte(rnd.Uint32())
		}
	}
}

func (m *model) compare(t *testing.T, v block.Device) {
	t.Helper()
	got := make([]byte, len(m.data))
	if err := v.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(got); i += 4096 {
		if !bytes.Equal(got[i:i+4096], m.data[i:i+4096]) {
			t.Fatalf("block %d is not what was written", i/4096)
		}
	}
}

func mustCheck(t *testing.T, l *Log) {
	t.Helper()
	r, err := l.Check(t.Context(), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() {
		t.Fatalf("check: %+v", r)
	}
}

func TestModel(t *testing.T) {
	watchdog(t, 2*time.Minute)
	for _, layout := range [][2]int{{1, 0}, {4, 2}, {1, 2}, {3, 1}} {
		t.Run(fmt.Sprintf("%d+%d", layout[0], layout[1]), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			m := &model{rand.New(rand.NewPCG(seed, 1)), make([]byte, 8<<20)}
			disks := unclosable(memoryDisks(layout[0]+layout[1], 24+40/layout[0]))
			l, v := newTestLog(t, disks, testSpec(layout[0], layout[1]), int64(len(m.data)))
			for round := range 6 {
				for range 400 {
					m.step(t, v)
				}
				m.compare(t, v)
				mustCheck(t, l)
				if err := l.Close(); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				l = mustOpen(t, disks, Options{})
				v, _ = l.OpenVolume("v")
				m.compare(t, v)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
