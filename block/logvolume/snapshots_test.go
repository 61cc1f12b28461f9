package logvolume

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"torpor/block"
)

// forest is what the volumes and snapshots of a log should be.
type forest struct {
	t       *testing.T
	rnd     *rand.Rand
	l       *Log
	volumes map[string]*tree
	names   int
}

// tree is a volume: a cell for each block; nil is zeros.
type tree struct {
	v         *Volume
	cells     []*cell
	snapshots map[string][]*cell
}

// cell is a block that was written, with the seed of its content.
type cell struct{ seed uint64 }

func (c *cell) fill(p []byte) {
	if c == nil {
		clear(p)
		return
	}
	for i := 0; i < len(p); i += 8 {
		x := c.seed + uint64(i)*0x9e3779b97f4a7c15
		for j := range 8 {
			p[i+j] = byte(x >> (8 * j))
		}
	}
}

func (f *forest) name(prefix string) string {
	f.names++
	return fmt.Sprintf("%s%d", prefix, f.names)
}

// any returns a volume, the first by name of a random place on.
func (f *forest) any() (string, *tree) {
	var names []string
	for name := range f.volumes {
		names = append(names, name)
	}
	slices.Sort(names)
	name := names[f.rnd.IntN(len(names))]
	return name, f.volumes[name]
}

func (f *forest) anySnapshot(y *tree) string {
	var names []string
	for name := range y.snapshots {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[f.rnd.IntN(len(names))]
}

const forestBlocks = 600

func (f *forest) create() {
	name := f.name("v")
	must(f.t, f.l.CreateVolume(name, forestBlocks*4096))
	f.volumes[name] = &tree{v: openVolume(f.t, f.l, name), cells: make([]*cell, forestBlocks), snapshots: map[string][]*cell{}}
}

// step does something, and says whether the log took it.
func (f *forest) step() {
	t := f.t
	t.Helper()
	name, y := f.any()
	switch what := f.rnd.IntN(40); {
	case what < 18:
		f.write(y)
	case what < 22:
		at, n := f.place(y)
		must(t, y.v.Discard(block.Range{Start: block.Offset(at) * 4096, LenBytes: int64(n) * 4096}, 0))
		clear(y.cells[at : at+n])
	case what < 25 && f.total() < 24:
		snapshot := f.name("s")
		must(t, f.l.Snapshot(name, snapshot))
		y.snapshots[snapshot] = slices.Clone(y.cells)
	case what < 28 && f.total() < 24:
		if snapshot := f.anySnapshot(y); snapshot != "" {
			clone := f.name("c")
			must(t, f.l.Clone(name, snapshot, clone))
			f.volumes[clone] = &tree{v: openVolume(t, f.l, clone), cells: slices.Clone(y.snapshots[snapshot]), snapshots: map[string][]*cell{}}
		}
	case what < 32:
		if snapshot := f.anySnapshot(y); snapshot != "" {
			must(t, f.l.Remove(name, snapshot))
			delete(y.snapshots, snapshot)
		}
	case what < 34 && len(f.volumes) > 2:
		must(t, y.v.Close())
		err := f.l.Remove(name, "")
		if len(y.snapshots) > 0 {
			if !errors.Is(err, ErrBusy) {
				t.Fatalf("removed a volume with snapshots: %v", err)
			}
			y.v = openVolume(t, f.l, name)
			return
		}
		must(t, err)
		delete(f.volumes, name)
	case what < 36:
		size := 1 + f.rnd.IntN(2*forestBlocks)
		must(t, f.l.Resize(name, int64(size)*4096))
		for len(y.cells) < size {
			y.cells = append(y.cells, nil)
		}
		y.cells = y.cells[:size:size]
	case what < 37:
		must(t, y.v.Flush())
	default:
		at, n := f.place(y)
		f.compare(y.v, y.cells, at, n)
	}
}

func (f *forest) total() int {
	n := 0
	for _, y := range f.volumes {
		n += 1 + len(y.snapshots)
	}
	return n
}

func (f *forest) place(y *tree) (at, n int) {
	n = 1 + f.rnd.IntN(min(len(y.cells), 150))
	return f.rnd.IntN(len(y.cells) - n + 1), n
}

func (f *forest) write(y *tree) {
	at, n := f.place(y)
	p := make([]byte, n*4096)
	cells := make([]*cell, n)
	for i := range n {
		cells[i] = &cell{f.rnd.Uint64()}
		cells[i].fill(p[i*4096 : (i+1)*4096])
	}
	must(f.t, y.v.WriteAt(p, block.Offset(at)*4096, 0))
	copy(y.cells[at:], cells)
}

func (f *forest) compare(d block.Device, cells []*cell, at, n int) {
	f.t.Helper()
	got, want := make([]byte, n*4096), make([]byte, 4096)
	must(f.t, d.ReadAt(got, block.Offset(at)*4096))
	for i := range n {
		cells[at+i].fill(want)
		if !bytes.Equal(got[i*4096:(i+1)*4096], want) {
			f.t.Fatalf("block %d is not what was written", at+i)
		}
	}
}

// check compares everything, and what it takes.
func (f *forest) check() {
	t := f.t
	t.Helper()
	used := map[*cell]bool{}
	for name, y := range f.volumes {
		f.compare(y.v, y.cells, 0, len(y.cells))
		for snapshot, cells := range y.snapshots {
			clone := f.name("look")
			must(t, f.l.Clone(name, snapshot, clone))
			v := openVolume(t, f.l, clone)
			if got := v.Info().SizeBytes; got != int64(len(cells))*4096 {
				t.Fatalf("%s@%s has %d bytes", name, snapshot, got)
			}
			f.compare(v, cells, 0, len(cells))
			must(t, v.Close())
			must(t, f.l.Remove(clone, ""))
		}
		for _, cells := range append(slices.Collect(mapValues(y.snapshots)), y.cells) {
			for _, c := range cells {
				if c != nil {
					used[c] = true
				}
			}
		}
	}
	mustCheck(t, f.l)
	// A removed snapshot with several above it keeps what they do not need.
	if got := f.l.Stats().UsedBytes; f.unbranched() && got != int64(len(used))*4096 {
		awaitUsed(t, f.l, int64(len(used))*4096)
	}
}

func mapValues(m map[string][]*cell) func(func([]*cell) bool) {
	return func(yield func([]*cell) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// unbranched says whether there is no removed layer that waits to have one child.
func (f *forest) unbranched() bool {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	for _, y := range f.l.layers {
		if y.removed && len(f.l.blocks.Children(y.id)) > 1 {
			return false
		}
	}
	return true
}

func (f *forest) reopen(disks []Disk, o Options) {
	f.l = mustOpen(f.t, disks, o)
	for name, y := range f.volumes {
		y.v = openVolume(f.t, f.l, name)
	}
}

// TestSnapshots compares volumes, snapshots and clones with a model.
func TestSnapshots(t *testing.T) {
	for range 2 * *roundsFlag {
		t.Run("", func(t *testing.T) { snapshots(t) })
	}
}

func snapshots(t *testing.T) {
	watchdog(t, 2*time.Minute)
	disks := unclosable(memoryDisks(3, 160))
	must(t, Create(disks, testSpec(2, 1)))
	f := &forest{t: t, rnd: testSeed(t), volumes: map[string]*tree{}}
	o := quietly
	o.DirtyBytes, o.CheckpointBytes = 4<<20, 4<<20
	f.reopen(disks, o)
	f.create()
	f.create()
	for range 6 {
		for range 80 {
			f.step()
		}
		f.check()
		switch f.rnd.IntN(3) {
		case 0:
			must(t, f.l.Close())
			f.reopen(disks, o)
		case 1:
			for _, y := range f.volumes {
				must(t, y.v.Flush())
			}
			crashed := crash(t, f.l, disks)
			must(t, f.l.Close())
			disks = crashed
			f.reopen(disks, o)
		}
		f.check()
	}
	for name, y := range f.volumes {
		must(t, y.v.Close())
		for snapshot := range y.snapshots {
			must(t, f.l.Remove(name, snapshot))
		}
		must(t, f.l.Remove(name, ""))
	}
	awaitUsed(t, f.l, 0)
	must(t, f.l.Close())
}
