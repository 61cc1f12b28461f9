package trace_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/block"
	"torpor/block/devicetest"
	"torpor/block/memory"
	"torpor/block/trace"
)

func newMemory(t testing.TB, sizeBytes int64, blockBytes int) *memory.Device {
	t.Helper()
	d, err := memory.New(memory.Spec{SizeBytes: sizeBytes, BlockBytes: blockBytes, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSuite crashes traced devices, and traces what is left.
func TestSuite(t *testing.T) {
	for _, blockBytes := range []int{512, 4096} {
		for _, spill := range []string{"", t.TempDir()} {
			t.Run(fmt.Sprintf("blocks of %d, spilt %v", blockBytes, spill != ""), func(t *testing.T) {
				wrap := func(t testing.TB, d block.Device) block.Device {
					traced, err := trace.NewGroup(trace.Options{SpillDirectory: spill}, d)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() {
						if err := traced[0].Recording().Close(); err != nil {
							t.Error(err)
						}
					})
					return traced[0]
				}
				crash := func(t testing.TB, d block.Device, r *rand.Rand) block.Device {
					rec := d.(*trace.Device).Recording()
					clones, err := rec.Cut(rec.Points(), r)
					if err != nil {
						t.Fatal(err)
					}
					return wrap(t, clones[0])
				}
				fresh := func(t testing.TB) block.Device { return wrap(t, newMemory(t, 4<<20, blockBytes)) }
				devicetest.Run(t, fresh, devicetest.Options{Crash: crash, Steps: 150})
			})
		}
	}
}

// disk is what the scripts below use: a device of four blocks that are letters.
type disk struct {
	t testing.TB
	d *trace.Device
}

func (d disk) write(at int, letters string, flags block.Flags) {
	d.t.Helper()
	if err := d.d.WriteAt([]byte(letters), block.Offset(at), flags); err != nil {
		d.t.Fatal(err)
	}
}

func (d disk) flush() {
	d.t.Helper()
	if err := d.d.Flush(); err != nil {
		d.t.Fatal(err)
	}
}

// group records so many disks that hold dots.
func group(t testing.TB, wrap func(block.Device) block.Device, disks int) []disk {
	t.Helper()
	below := make([]block.Device, disks)
	for i := range below {
		m := newMemory(t, 4, 1)
		if err := m.WriteAt([]byte("...."), 0, 0); err != nil {
			t.Fatal(err)
		}
		below[i] = m
		if wrap != nil {
			below[i] = wrap(m)
		}
	}
	traced, err := trace.NewGroup(trace.Options{}, below...)
	if err != nil {
		t.Fatal(err)
	}
	var all []disk
	for _, d := range traced {
		all = append(all, disk{t, d})
	}
	return all
}

// states cuts many times after a point and returns all that came, each as the
// disks' contents.
func states(t testing.TB, r *trace.Recording, point int) []string {
	t.Helper()
	found := map[string]bool{}
	for seed := range uint64(400) {
		clones, err := r.Cut(point, rand.New(rand.NewPCG(seed, 0)))
		if err != nil {
			t.Fatal(err)
		}
		var contents []string
		for _, c := range clones {
			b := make([]byte, 4)
			if err := c.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			contents = append(contents, strings.ReplaceAll(string(b), "\x00", "0"))
		}
		found[strings.Join(contents, " ")] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// want compares all states that come with those that are legal, where the
// operation after the point may be under way.
func want(t testing.TB, r *trace.Recording, point int, legal ...string) {
	t.Helper()
	slices.Sort(legal)
	if diff := cmp.Diff(legal, states(t, r, point)); diff != "" {
		t.Errorf("after %d operations (- legal, + came): %s", point, diff)
	}
}

// TestStates enumerates what a script may leave at each of its points.
func TestStates(t *testing.T) {
	d := group(t, nil, 1)[0]
	r := d.d.Recording()
	d.write(0, "ab", 0)                 // 1
	d.write(1, "c", 0)                  // 2
	d.flush()                           // 3
	d.write(1, "de", 0)                 // 4
	d.write(1, "f", block.FUA)          // 5
	d.write(3, "gh"[:1], 0)             // 6
	if err := d.d.Close(); err != nil { // 7
		t.Fatal(err)
	}
	if n := r.Points(); n != 7 {
		t.Errorf("%d points", n)
	}
	want(t, r, 0, "....", "a...", ".b..", "ab..")
	want(t, r, 1, "....", "a...", ".b..", "ab..", ".c..", "ac..")
	want(t, r, 2, "....", "a...", ".b..", "ab..", ".c..", "ac..")
	want(t, r, 3, "ac..", "ad..", "ace.", "ade.")
	want(t, r, 4, "ac..", "ad..", "ace.", "ade.", "af..", "afe.")
	want(t, r, 5, "af..", "afe.", "af.g", "afeg")
	want(t, r, 6, "af..", "afe.", "af.g", "afeg")
	want(t, r, 7, "afeg")
	if _, err := r.Cut(8, rand.New(rand.NewPCG(0, 0))); err == nil {
		t.Error("cut after the end")
	}
	first := states(t, r, 6)
	if diff := cmp.Diff(first, states(t, r, 6)); diff != "" {
		t.Errorf("the same seeds give something else: %s", diff)
	}
}

// TestZeros enumerates what zeros and discards may leave.
func TestZeros(t *testing.T) {
	d := group(t, nil, 1)[0]
	r := d.d.Recording()
	if err := d.d.Zero(block.Range{LenBytes: 1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.d.Discard(block.Range{Start: 1, LenBytes: 1}, block.FUA); err != nil {
		t.Fatal(err)
	}
	want(t, r, 2, ".0..", "00..")
	d.flush()
	want(t, r, 3, "00..")
}

// vague is a device that does not say what discarded blocks read as.
type vague struct{ block.Device }

func (v vague) Info() block.Info {
	info := v.Device.Info()
	info.Discards = false
	return info
}

func TestVagueDiscard(t *testing.T) {
	d := group(t, func(m block.Device) block.Device { return vague{m} }, 1)[0]
	if err := d.d.Discard(block.Range{LenBytes: 1}, block.FUA); err != nil {
		t.Fatal(err)
	}
	d.flush()
	want(t, d.d.Recording(), 2, "....", "0...")
}

// TestGroup cuts two disks at the same moment.
func TestGroup(t *testing.T) {
	disks := group(t, nil, 2)
	a, b := disks[0], disks[1]
	a.write(0, "a", block.FUA) // 1
	b.write(0, "b", 0)         // 2
	a.flush()                  // 3
	b.flush()                  // 4
	a.write(0, "c", block.FUA) // 5
	r := a.d.Recording()
	if r != b.d.Recording() {
		t.Error("two recordings")
	}
	want(t, r, 0, ".... ....", "a... ....")
	want(t, r, 1, "a... ....", "a... b...")
	want(t, r, 2, "a... ....", "a... b...")
	want(t, r, 3, "a... ....", "a... b...")
	want(t, r, 4, "a... b...", "c... b...")
	want(t, r, 5, "c... b...")
}

// slow is a device whose writes and flushes wait, each of its own kind.
type slow struct {
	block.Device
	begun, write, flush chan struct{}
}

func (s *slow) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	s.begun <- struct{}{}
	<-s.write
	return s.Device.WriteAt(p, off, flags)
}

func (s *slow) Flush() error {
	s.begun <- struct{}{}
	<-s.flush
	return s.Device.Flush()
}

// TestUnderWay cuts while a write and a flush have not ended.
func TestUnderWay(t *testing.T) {
	s := &slow{nil, make(chan struct{}, 1), make(chan struct{}, 8), make(chan struct{}, 8)}
	s.flush <- struct{}{} // of the beginning
	d := group(t, func(m block.Device) block.Device {
		s.Device = m
		return s
	}, 1)[0]
	<-s.begun
	r := d.d.Recording()

	s.write <- struct{}{}
	d.write(0, "a", 0) // 1
	<-s.begun
	var under sync.WaitGroup
	under.Go(func() { d.write(1, "bc", block.FUA) })
	<-s.begun
	under.Go(d.flush)
	<-s.begun
	want(t, r, 1, "....", "a...", ".b..", "ab..", "..c.", "a.c.", ".bc.", "abc.")
	s.flush <- struct{}{} // 2: it covers a, not bc
	for r.Points() < 2 {
		runtime.Gosched()
	}
	want(t, r, 2, "a...", "ab..", "a.c.", "abc.")
	s.write <- struct{}{} // 3
	under.Wait()
	want(t, r, 3, "abc.")
	want(t, r, 2, "a...", "ab..", "a.c.", "abc.")
}

// TestDuringFlush ends a write while a flush is under way, which does not cover it.
func TestDuringFlush(t *testing.T) {
	s := &slow{nil, make(chan struct{}, 1), make(chan struct{}, 8), make(chan struct{}, 8)}
	s.flush <- struct{}{} // of the beginning
	d := group(t, func(m block.Device) block.Device {
		s.Device = m
		return s
	}, 1)[0]
	<-s.begun
	r := d.d.Recording()
	var flush sync.WaitGroup
	flush.Go(d.flush)
	<-s.begun
	s.write <- struct{}{}
	d.write(0, "a", 0) // 1
	<-s.begun
	s.flush <- struct{}{} // 2
	flush.Wait()
	want(t, r, 2, "....", "a...")
	s.flush <- struct{}{}
	d.flush() // 3
	want(t, r, 3, "a...")
}

// failing is a device that fails after it did half of it.
type failing struct{ block.Device }

func (f failing) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	if err := f.Device.WriteAt(p[:len(p)/2], off, flags); err != nil {
		return err
	}
	return syscall.EIO
}

// TestFailed records a write that failed: nothing is known of it, flushed or not.
func TestFailed(t *testing.T) {
	d := group(t, func(m block.Device) block.Device { return failing{m} }, 1)[0]
	if err := d.d.WriteAt([]byte("ab"), 0, block.FUA); err != syscall.EIO {
		t.Fatal(err)
	}
	d.flush()
	want(t, d.d.Recording(), 2, "....", "a...", ".b..", "ab..")
	if err := d.d.WriteAt([]byte("abcde"), 0, 0); err == nil {
		t.Error("wrote beyond the end")
	}
	if n := d.d.Recording().Points(); n != 2 {
		t.Errorf("what was refused was recorded: %d points", n)
	}
}

// TestTornBlocks cuts a write of whole blocks: none is torn.
func TestTornBlocks(t *testing.T) {
	const unit, blocks = 512, 3
	d, err := trace.New(newMemory(t, unit*blocks, unit))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(bytes.Repeat([]byte{1}, unit*blocks), 0, 0); err != nil {
		t.Fatal(err)
	}
	came := map[string]bool{}
	for seed := range uint64(300) {
		clones, err := d.Recording().Cut(1, rand.New(rand.NewPCG(seed, 0)))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, unit*blocks)
		if err := clones[0].ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		state := ""
		for c := range slices.Chunk(b, unit) {
			if !bytes.Equal(c, bytes.Repeat(c[:1], unit)) {
				t.Fatal("a block is torn")
			}
			state += fmt.Sprint(c[0])
		}
		came[state] = true
	}
	if len(came) != 1<<blocks {
		t.Errorf("states %v", slices.Sorted(maps.Keys(came)))
	}
}
