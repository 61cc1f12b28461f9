package logvolume

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/fault"
	"torpor/block/logvolume/format"
)

var dead = fault.Rule{Action: fault.Action{Err: syscall.EIO}}

// during runs the model until something is done.
func (m *model) during(t *testing.T, v block.Device, do func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	for {
		select {
		case err := <-done:
			must(t, err)
			return
		default:
			m.step(t, v)
		}
	}
}

// unevenDisks are of so many shards each, and can be made to fail.
func unevenDisks(prefix string, shards ...int) *faulty {
	var disks []Disk
	for i, n := range shards {
		d := memoryDisks(1, n)[0]
		d.Name = fmt.Sprintf("%s%d", prefix, i)
		disks = append(disks, d)
	}
	return faultyDisks(disks)
}

// expectWhole checks that no segment lacks a shard.
func expectWhole(t *testing.T, l *Log, state State) {
	t.Helper()
	if s := l.Stats(); s.State != state || s.DegradedSegments > 0 {
		t.Fatalf("state %s, %d degraded segments: %+v", s.State, s.DegradedSegments, s.Disks)
	}
}

// survives opens a log several times with as many disks missing as may be.
func (m *model) survives(t *testing.T, disks []Disk, parity int) {
	t.Helper()
	for range 4 {
		left := append([]Disk(nil), copyDisks(t, disks)...)
		m.rnd.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		l := mustOpen(t, left[parity:], quietly)
		m.compare(t, openVolume(t, l, "v"))
		must(t, l.Close())
	}
}

// TestRebuild loses disks of more than the layout needs, spreads what they had
// over the others, replaces and adds disks, all under load.
func TestRebuild(t *testing.T) {
	watchdog(t, 2*time.Minute)
	world := &model{testSeed(t), make([]byte, 6<<20)}
	f := unevenDisks("m", 40, 52, 60, 44, 48, 64, 56, 50)
	must(t, Create(f.disks, testSpec(4, 2)))
	o := quietly
	o.DirtyBytes, o.CheckpointBytes = 4<<20, 4<<20
	l := mustOpen(t, f.disks, o)
	must(t, l.CreateVolume("v", int64(len(world.data))))
	v := openVolume(t, l, "v")
	for range 100 {
		world.step(t, v)
	}
	for _, i := range []int{2, 5} {
		f.faults[i].Add(dead)
		for range 30 {
			world.step(t, v)
		}
		must(t, v.Flush())
		world.during(t, v, func() error { return l.Rebuild(t.Context(), nil) })
		expectWhole(t, l, StateDegraded)
	}
	must(t, v.Flush())
	world.survives(t, crash(t, l, append(append(append([]Disk(nil), f.disks[:2]...), f.disks[3:5]...), f.disks[6:]...)), 0)
	fresh := unevenDisks("n", 60, 70, 80, 90)
	world.during(t, v, func() error { return l.ReplaceDisk(t.Context(), "m2", fresh.disks[0], nil) })
	if err := l.ReplaceDisk(t.Context(), "m5", unevenDisks("small", 30).disks[0], nil); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("a smaller disk: %v", err)
	}
	world.during(t, v, func() error { return l.ReplaceDisk(t.Context(), "m5", fresh.disks[1], nil) })
	// One that is in use is replaced, and another disk fails in the middle.
	started, failed := false, make(chan struct{})
	world.during(t, v, func() error {
		return l.ReplaceDisk(t.Context(), "m7", fresh.disks[3], func(done, total int) {
			if done > 2 && !started {
				started = true
				f.faults[0].Add(dead)
				close(failed)
			}
		})
	})
	<-failed
	for range 10 {
		world.step(t, v)
	}
	must(t, v.Flush())
	world.during(t, v, func() error { return l.AddDisk(fresh.disks[2]) })
	f.heal()
	world.during(t, v, func() error { return l.ReplaceDisk(t.Context(), "m0", f.disks[0], nil) })
	world.during(t, v, func() error { return l.Rebuild(t.Context(), nil) })
	expectWhole(t, l, StateOK)
	mustCheck(t, l)
	must(t, l.Close())
	all := append([]Disk(nil), f.disks...)
	all[2], all[5], all[7] = fresh.disks[0], fresh.disks[1], fresh.disks[3]
	all = append(all, fresh.disks[2])
	world.survives(t, all, 2)
}

// TestRebuildInterrupted cancels a rebuild again and again, and closes the log in
// between.
func TestRebuildInterrupted(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 6<<20)}
	f := unevenDisks("m", 40, 40, 40)
	l, v := newTestLog(t, f.disks, testSpec(2, 1), int64(len(world.data)))
	world.fillAll(t, v)
	f.disks[1] = unevenDisks("n", 40).disks[0]
	interrupt := func(run func(context.Context, Progress) error) bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		steps := 0
		err := run(ctx, func(done, total int) {
			if steps++; steps == 4 {
				cancel()
			}
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		return err != nil
	}
	if !interrupt(func(ctx context.Context, p Progress) error { return l.ReplaceDisk(ctx, "m1", f.disks[1], p) }) {
		t.Error("was not interrupted")
	}
	for n := 0; interrupt(l.Rebuild); n++ {
		if s := l.Stats(); s.State != StateDegraded || s.Disks[1].State != "filling" {
			t.Errorf("state %s: %+v", s.State, s.Disks[1])
		}
		world.step(t, v)
		if n%2 == 0 {
			must(t, l.Close())
			l = mustOpen(t, f.disks, quietly)
			v = openVolume(t, l, "v")
		}
		if n == 100 {
			t.Fatal("comes to no end")
		}
	}
	expectWhole(t, l, StateOK)
	mustCheck(t, l)
	must(t, l.Close())
	world.survives(t, f.disks, 1)
}

// TestPowerCutInRebuild cuts the power while a disk is filled, and goes on after it.
func TestPowerCutInRebuild(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint(again), func(t *testing.T) { powerCutInRebuild(t, again) })
	}
}

func powerCutInRebuild(t *testing.T, again bool) {
	watchdog(t, time.Minute)
	rnd := testSeed(t)
	disks := unclosable(append(memoryDisks(6, 40), memoryDisks(1, 40)...))
	must(t, Create(disks[:6], testSpec(4, 2)))
	l := mustOpen(t, disks[:6], quietly)
	must(t, l.CreateVolume("v", 4<<20))
	s := &stamped{t: t, rnd: rnd, blocks: 1024}
	v := openVolume(t, l, "v")
	zero := func() int { return 0 }
	for range 60 {
		s.step(v, zero)
	}
	must(t, l.Close())
	s.flushed = len(s.ops)
	l = mustOpen(t, disks[1:6], quietly) // m0 misses something
	v = openVolume(t, l, "v")
	for range 30 {
		s.step(v, zero)
	}
	must(t, l.Close())
	s.flushed = len(s.ops)
	s.ops[len(s.ops)-1].flushed = s.flushed
	recorded, recording := traced(t, disks)
	new := recorded[6]
	if again {
		new = recorded[0]
	}
	l = mustOpen(t, recorded[1:6], quietly)
	v = openVolume(t, l, "v")
	name := l.Stats().Disks[0].ID
	done := make(chan error, 1)
	go func() { done <- l.ReplaceDisk(t.Context(), name, new, nil) }()
	for range 30 {
		s.step(v, recording.Points)
	}
	must(t, <-done)
	must(t, l.Close())
	for range 12 * *roundsFlag {
		point := rnd.IntN(recording.Points() + 1)
		left := cut(t, recording, point, rnd)
		new := left[6]
		if again {
			left, new = left[:6], left[0]
		}
		l, err := Open(left, quietly)
		must(t, err)
		v := openVolume(t, l, "v")
		if err := s.isPrefix(s.versions(v), point); err != nil {
			t.Fatal(err)
		}
		// The place may be the new disk's already, without a superblock on it.
		if d := l.Stats().Disks[0]; d.State == "out" {
			must(t, l.ReplaceDisk(t.Context(), d.ID, new, nil))
		}
		must(t, l.Rebuild(t.Context(), nil))
		expectWhole(t, l, StateOK)
		mustCheck(t, l)
		must(t, l.Close())
	}
}

// TestScrub damages what disks hold, up to m of each stripe.
func TestScrub(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 6<<20)}
	f := unevenDisks("m", 40, 40, 40, 40, 40, 40)
	l, v := newTestLog(t, f.disks, testSpec(4, 2), int64(len(world.data)))
	for range 2 * *roundsFlag {
		world.fillAll(t, v)
		for _, i := range world.rnd.Perm(6)[:2] {
			size := f.disks[i].Device.Info().SizeBytes
			from := block.Offset(format.HeadBytes + l.geometry.JournalBytes)
			must(t, f.faults[i].Damage(block.Range{Start: from, LenBytes: (size - int64(from)) &^ 4095}, 3000))
		}
		world.compare(t, v)
		r, err := l.Scrub(t.Context(), false, nil)
		must(t, err)
		if r.WrongBlocks == 0 || r.RepairedBlocks != 0 || len(r.Lost) != 0 {
			t.Errorf("without repair: %+v", r)
		}
		world.during(t, v, func() error {
			r, err := l.Scrub(t.Context(), true, nil)
			if err == nil && (r.RepairedBlocks == 0 || len(r.Lost) != 0) {
				err = fmt.Errorf("with repair: %+v", r)
			}
			return err
		})
		mustCheck(t, l)
		must(t, l.Close())
		world.survives(t, f.disks, 2)
		l = mustOpen(t, f.disks, quietly)
		v = openVolume(t, l, "v")
	}
	must(t, l.Close())
}
