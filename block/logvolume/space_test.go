package logvolume

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/logvolume/format"
)

var quietly = Options{Events: func(Event) {}}

// fillUp writes the volume from a place on until there is no space, and returns
// where that was.
func (m *model) fillUp(t *testing.T, v block.Device, from int) int {
	t.Helper()
	for at := from; at < len(m.data); {
		n := min(4096*(1+m.rnd.IntN(300)), len(m.data)-at)
		p := make([]byte, n)
		fill(m.rnd, p)
		err := v.WriteAt(p, block.Offset(at), 0)
		if errors.Is(err, block.ErrNoSpace) {
			m.reread(t, v, at, n, p)
			return at
		}
		must(t, err)
		copy(m.data[at:], p)
		at += n
	}
	t.Fatal("the log takes more than the volume has")
	return 0
}

// reread takes over what a write that failed has left: old or new content of each block.
func (m *model) reread(t *testing.T, v block.Device, at, n int, p []byte) {
	t.Helper()
	got := make([]byte, n)
	must(t, v.ReadAt(got, block.Offset(at)))
	for i := 0; i < n; i += 4096 {
		b, old := got[i:i+4096], m.data[at+i:at+i+4096]
		if !bytes.Equal(b, old) && !bytes.Equal(b, p[i:i+4096]) {
			t.Fatalf("block %d after a failed write is neither old nor new", (at+i)/4096)
		}
		copy(old, b)
	}
}

// overwrite writes within the first n bytes.
func (m *model) overwrite(t *testing.T, v block.Device, n, maxBlocks int) {
	t.Helper()
	blocks := 1 + m.rnd.IntN(maxBlocks)
	at := m.rnd.IntN(n/4096-blocks+1) * 4096
	p := make([]byte, blocks*4096)
	fill(m.rnd, p)
	if err := v.WriteAt(p, block.Offset(at), 0); err != nil {
		t.Fatalf("overwrite of %d bytes at %d: %v", len(p), at, err)
	}
	copy(m.data[at:], p)
}

// TestFull fills a log, and goes on with it full.
func TestFull(t *testing.T) {
	for _, layout := range [][2]int{{1, 0}, {4, 2}} {
		t.Run(fmt.Sprintf("%d+%d", layout[0], layout[1]), func(t *testing.T) {
			watchdog(t, time.Minute)
			k, m := layout[0], layout[1]
			world := &model{testSeed(t), make([]byte, 64<<20)}
			disks := unclosable(memoryDisks(k+m, 28+60/k))
			l, v := newTestLog(t, disks, testSpec(k, m), int64(len(world.data)))
			for range 3 {
				full := world.fillUp(t, v, 0)
				if s := l.Stats(); s.UsedBytes > s.CapacityBytes || s.UsedBytes < s.CapacityBytes*9/10 {
					t.Errorf("full with %d of %d bytes", s.UsedBytes, s.CapacityBytes)
				}
				for range 200 {
					world.overwrite(t, v, full, 20)
				}
				must(t, v.Flush())
				world.compare(t, v)
				must(t, l.Close())
				l = mustOpen(t, disks, quietly)
				v = openVolume(t, l, "v")
				world.compare(t, v)
				for range 100 {
					world.overwrite(t, v, full, 3)
				}
				r := block.Range{Start: block.Offset(full/8192) * 4096, LenBytes: 4 << 20}
				must(t, v.Discard(r, 0))
				clear(world.data[r.Start:r.End()])
				p := make([]byte, 3<<20)
				fill(world.rnd, p)
				must(t, v.WriteAt(p, r.Start, 0))
				copy(world.data[r.Start:], p)
			}
			mustCheck(t, l)
			must(t, v.Discard(block.Range{LenBytes: int64(len(world.data))}, 0))
			clear(world.data)
			must(t, v.Flush())
			world.fillUp(t, v, 0)
			world.compare(t, v)
			must(t, l.Close())
		})
	}
}

// TestFullMap fills a log with blocks that each need a leaf of the map.
func TestFullMap(t *testing.T) {
	watchdog(t, time.Minute)
	rnd := testSeed(t)
	disks := unclosable(memoryDisks(3, 60))
	l, v := newTestLog(t, disks, testSpec(2, 1), 1<<40)
	p := make([]byte, 4096)
	written := 0
	at := func(i int) block.Offset { return block.Offset(i) << 21 }
	for ; ; written++ {
		p[0] = byte(written)
		err := v.WriteAt(p, at(written), 0)
		if errors.Is(err, block.ErrNoSpace) {
			break
		}
		must(t, err)
		if rnd.IntN(500) == 0 {
			must(t, v.Flush())
		}
	}
	t.Logf("%d blocks: %+v", written, l.Stats())
	for range 2000 {
		i := rnd.IntN(written)
		p[0] = byte(i)
		must(t, v.WriteAt(p, at(i), 0))
	}
	must(t, l.Close())
	l = mustOpen(t, disks, quietly)
	v = openVolume(t, l, "v")
	for i := range written {
		must(t, v.ReadAt(p, at(i)))
		if p[0] != byte(i) {
			t.Fatalf("block %d is not what was written", i)
		}
	}
	mustCheck(t, l)
	must(t, v.Discard(block.Range{LenBytes: 1 << 40}, 0))
	must(t, v.WriteAt(make([]byte, 8<<20), 0, 0))
	must(t, l.Close())
}

// TestJournalWithoutSegments leaves changes in the journal, at a crash, for which no segment
// was free.
func TestJournalWithoutSegments(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 2<<20)}
	disks := unclosable(memoryDisks(3, 34))
	l, v := newTestLog(t, disks, testSpec(2, 1), int64(len(world.data)))
	l.cleanMu.Lock() // nothing is cleaned
	p := make([]byte, 4096)
	written := make(chan error, 1)
	var at int
	waiting := waitForSegment(t, l)
	for {
		at = world.rnd.IntN(len(world.data)/4096) * 4096
		fill(world.rnd, p)
		go func() { written <- v.WriteAt(p, block.Offset(at), block.FUA) }()
		select {
		case err := <-written:
			must(t, err)
			copy(world.data[at:], p)
			continue
		case <-waiting:
		}
		break
	}
	crashed := copyDisks(t, disks)
	l.cleanMu.Unlock()
	must(t, <-written)
	must(t, l.Close())
	l = mustOpen(t, crashed, quietly)
	v = openVolume(t, l, "v")
	world.reread(t, v, at, 4096, p) // the last one was not acknowledged
	world.compare(t, v)
	mustCheck(t, l)
	must(t, l.Close())
}

// waitForSegment tells when a flush waits for a segment that nobody frees.
func waitForSegment(t *testing.T, l *Log) <-chan struct{} {
	waits := make(chan struct{})
	go func() {
		before := l.waitingRow()
		for t.Context().Err() == nil {
			time.Sleep(100 * time.Millisecond)
			row := l.waitingRow()
			if row != 0 && row == before {
				close(waits)
				return
			}
			before = row
		}
	}()
	return waits
}

// waitingRow is the row that a flush waits for, 0 if there is none.
func (l *Log) waitingRow() format.RowNumber {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flushing && l.inFlight == 0 && l.streams[format.Hot].next == nil && l.mustCut() {
		return l.nextRow
	}
	return 0
}

// TestFullBySnapshot overwrites what a snapshot keeps until there is no space, and
// goes on when the snapshot is removed.
func TestFullBySnapshot(t *testing.T) {
	watchdog(t, time.Minute)
	disks := unclosable(memoryDisks(3, 60))
	must(t, Create(disks, testSpec(2, 1)))
	l := mustOpen(t, disks, quietly)
	world := &model{testSeed(t), make([]byte, l.Stats().CapacityBytes*6/10&^4095)}
	must(t, l.CreateVolume("v", int64(len(world.data))))
	v := openVolume(t, l, "v")
	for range 3 {
		world.fillAll(t, v)
		kept := append([]byte(nil), world.data...)
		must(t, l.Snapshot("v", "s"))
		refused := false
		for i := 0; i < 4000 && !refused; i++ {
			p := make([]byte, 4096*(1+world.rnd.IntN(40)))
			fill(world.rnd, p)
			at := world.rnd.IntN((len(world.data)-len(p))/4096+1) * 4096
			err := v.WriteAt(p, block.Offset(at), 0)
			if refused = errors.Is(err, block.ErrNoSpace); refused {
				world.reread(t, v, at, len(p), p)
				continue
			}
			must(t, err)
			copy(world.data[at:], p)
		}
		must(t, v.Flush())
		world.compare(t, v)
		if !refused {
			t.Error("two copies fit")
		}
		must(t, l.Clone("v", "s", "c"))
		c := openVolume(t, l, "c")
		(&model{world.rnd, kept}).compare(t, c)
		must(t, c.Close())
		must(t, l.Remove("c", ""))
		must(t, l.Remove("v", "s"))
		awaitUsed(t, l, int64(len(world.data)))
	}
	world.compare(t, v)
	mustCheck(t, l)
	must(t, l.Close())
}

func (m *model) fillAll(t *testing.T, v block.Device) {
	t.Helper()
	fill(m.rnd, m.data)
	must(t, v.WriteAt(m.data, 0, 0))
	must(t, v.Flush())
}

// awaitUsed waits until the log has so much useful data. A watchdog is needed.
func awaitUsed(t *testing.T, l *Log, want int64) {
	t.Helper()
	for i := 0; l.Stats().UsedBytes != want; i++ {
		if i == 5000 {
			t.Fatalf("%d bytes are used, not %d", l.Stats().UsedBytes, want)
		}
		l.wakeCleaner()
		time.Sleep(time.Millisecond)
	}
}

// TestNearlyFull overwrites at random in a log that is filled to some percentage.
func TestNearlyFull(t *testing.T) {
	for _, percent := range []int64{70, 80, 90, 97} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			watchdog(t, time.Minute)
			disks := unclosable(memoryDisks(3, 60))
			spec := testSpec(2, 1)
			must(t, Create(disks, spec))
			o := quietly
			o.DirtyBytes, o.CheckpointBytes = 2<<20, 4<<20
			l := mustOpen(t, disks, o)
			size := l.Stats().CapacityBytes * percent / 100 &^ 4095
			must(t, l.CreateVolume("v", size))
			v := openVolume(t, l, "v")
			world := &model{testSeed(t), make([]byte, size)}
			world.fillAll(t, v)
			for range 4 * *roundsFlag {
				for range 400 {
					world.overwrite(t, v, len(world.data), 8)
					if world.rnd.IntN(10) == 0 {
						must(t, v.Flush())
					}
				}
				world.compare(t, v)
				must(t, l.Close())
				l = mustOpen(t, disks, o)
				v = openVolume(t, l, "v")
			}
			world.compare(t, v)
			mustCheck(t, l)
			s := l.Stats()
			t.Logf("amplification %.2f", s.WriteAmplification())
			must(t, l.Close())
		})
	}
}
