package logvolume

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/fault"
)

var roundsFlag = flag.Int("rounds", 1, "how much longer than usual random tests run")

// aFault is a way for a disk to be bad.
type aFault struct {
	name string
	// out: the disk is put out once it is written to or flushed.
	out   bool
	lies  bool // it may return wrong data
	rules []fault.Rule
}

func failing(name string, ops fault.Ops, errno syscall.Errno, out bool) aFault {
	return aFault{name: name, out: out, rules: []fault.Rule{{Ops: ops, Action: fault.Action{Err: errno}}}}
}

func lying(name string, ops fault.Ops, a fault.Action) aFault {
	return aFault{name: name, lies: true, rules: []fault.Rule{{Ops: ops, Rate: 0.3, Action: a}}}
}

var diskFaults = []aFault{
	{name: "missing", out: true},
	failing("read errors", fault.Read, syscall.EIO, false),
	failing("write errors", fault.Write, syscall.EIO, true),
	failing("no space", fault.Write, syscall.ENOSPC, true),
	failing("flush errors", fault.Flush, syscall.EIO, true),
	{name: "late write errors", rules: []fault.Rule{{Ops: fault.Write, Skip: 60, Action: fault.Action{Err: syscall.EIO}}}},
	{name: "late flush errors", rules: []fault.Rule{{Ops: fault.Flush, Skip: 20, Action: fault.Action{Err: syscall.EIO}}}},
	{name: "dies", rules: []fault.Rule{{Skip: 100, Action: fault.Action{Err: syscall.ENXIO}}}},
	lying("flipped when read", fault.Read, fault.Action{FlipBits: 3}),
	lying("flipped when written", fault.Write, fault.Action{FlipBits: 1}),
	lying("read elsewhere", fault.Read, fault.Action{ShiftBytes: 4096}),
	lying("written elsewhere", fault.Write, fault.Action{ShiftBytes: 8192}),
	lying("lost writes", fault.Write, fault.Action{Lose: true}),
	lying("torn writes", fault.Write, fault.Action{Tear: true}),
	{name: "slow", rules: []fault.Rule{{Rate: 0.1, Action: fault.Action{Delay: time.Millisecond, Jitter: time.Millisecond}}}},
}

// spoil chooses how many disks are bad, which, and how.
func (f *faulty) spoil(t *testing.T, rnd *rand.Rand, most int) map[int]aFault {
	bad := map[int]aFault{}
	var names []string
	for _, i := range rnd.Perm(len(f.disks))[:1+rnd.IntN(most)] {
		bad[i] = diskFaults[rnd.IntN(len(diskFaults))]
		names = append(names, fmt.Sprintf("%s: %s", f.disks[i].Name, bad[i].name))
		f.faults[i].Seed(rnd.Uint64())
		for _, rule := range bad[i].rules {
			f.faults[i].Add(rule)
		}
	}
	t.Log(strings.Join(names, ", "))
	return bad
}

// present are the disks that are not missing.
func (f *faulty) present(bad map[int]aFault) []Disk {
	var disks []Disk
	for i, d := range f.disks {
		if bad[i].name != "missing" {
			disks = append(disks, d)
		}
	}
	return disks
}

func (f *faulty) heal() {
	for _, d := range f.faults {
		d.Clear()
	}
}

// TestBadDisks has up to m disks be bad while a model runs, repairs the log, and
// then takes other disks away, to see whether it was made whole.
func TestBadDisks(t *testing.T) {
	for _, layout := range [][2]int{{4, 2}, {1, 2}, {3, 1}} {
		t.Run(fmt.Sprintf("%d+%d", layout[0], layout[1]), func(t *testing.T) {
			for range 4 * *roundsFlag {
				t.Run("", func(t *testing.T) { badDisks(t, layout[0], layout[1]) })
			}
		})
	}
}

func badDisks(t *testing.T, k, m int) {
	watchdog(t, time.Minute)
	rnd := testSeed(t)
	world := &model{rnd, make([]byte, 4<<20)}
	f := faultyDisks(memoryDisks(k+m, 24+40/k))
	l, v := newTestLog(t, f.disks, testSpec(k, m), int64(len(world.data)))
	for range 60 {
		world.step(t, v)
	}
	must(t, l.Close())
	bad := f.spoil(t, rnd, m)
	quiet := Options{Events: func(e Event) {}, DirtyBytes: 4 << 20, CheckpointBytes: 4 << 20}
	for range 2 {
		l = mustOpen(t, f.present(bad), quiet)
		v = openVolume(t, l, "v")
		for range 120 {
			world.step(t, v)
		}
		world.compare(t, v)
		must(t, v.Flush())
		checkState(t, l, f, bad)
		must(t, l.Close())
	}
	f.heal()
	l = mustOpen(t, f.disks, quiet)
	v = openVolume(t, l, "v")
	world.compare(t, v)
	repair(t, l, f)
	for range 30 {
		world.step(t, v)
	}
	must(t, l.Close())
	l = mustOpen(t, without(rnd, f.disks, m), quiet)
	v = openVolume(t, l, "v")
	world.compare(t, v)
	must(t, l.Close())
}

// checkState compares what a log says of its disks with what they are.
func checkState(t *testing.T, l *Log, f *faulty, bad map[int]aFault) {
	t.Helper()
	stats := l.Stats()
	for i, d := range f.disks {
		how, out := bad[i], false
		for _, s := range stats.Disks {
			if s.Name == d.Name {
				out = s.State == "out"
				if out && s.Reason == "" {
					t.Errorf("disk %s is out without a reason", d.Name)
				}
			}
		}
		if how.name == "missing" {
			continue
		}
		if how.out && !out || how.name == "" && out {
			t.Errorf("disk %s (%q) is out: %v", d.Name, how.name, out)
		}
		if out && stats.State != StateDegraded {
			t.Errorf("state %s with disk %s out", stats.State, d.Name)
		}
	}
	if stats.Failure != "" {
		t.Errorf("failed: %s", stats.Failure)
	}
}

// repair puts disks that are out in their own places, and has everything made right.
func repair(t *testing.T, l *Log, f *faulty) {
	t.Helper()
	listed := map[string]bool{}
	for _, s := range l.Stats().Disks {
		listed[s.Name] = true
	}
	for _, s := range l.Stats().Disks {
		for _, d := range f.disks {
			// One without a superblock that is right is not known by its name.
			if s.State == "out" && (d.Name == s.Name || s.Missing && !listed[d.Name]) {
				must(t, l.ReplaceDisk(t.Context(), s.ID, d, nil))
				listed[d.Name] = true
				break
			}
		}
	}
	must(t, l.Rebuild(t.Context(), nil))
	if _, err := l.Scrub(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, l)
	if s := l.Stats(); s.State != StateOK || s.DegradedSegments != 0 {
		t.Fatalf("state %s, %d degraded segments after repair: %+v", s.State, s.DegradedSegments, s.Disks)
	}
}

// TestTooManyBadDisks fails one disk more than may be, in the middle of writes. What
// was flushed is there when the disks are.
func TestTooManyBadDisks(t *testing.T) {
	for _, layout := range [][2]int{{1, 0}, {4, 2}, {1, 2}} {
		for _, how := range diskFaults {
			if how.name == "missing" || how.lies || how.name == "slow" || how.name == "read errors" {
				continue
			}
			t.Run(fmt.Sprintf("%d+%d %s", layout[0], layout[1], how.name), func(t *testing.T) { tooManyBadDisks(t, layout[0], layout[1], how) })
		}
	}
}

func tooManyBadDisks(t *testing.T, k, m int, how aFault) {
	watchdog(t, time.Minute)
	rnd := testSeed(t)
	f := faultyDisks(memoryDisks(k+m, 16+24/k))
	l, v := newTestLog(t, f.disks, testSpec(k, m), 4<<20)
	s := &stamped{t: t, rnd: rnd, blocks: 1024}
	zero := func() int { return 0 }
	for range 50 {
		s.step(v, zero)
	}
	for _, i := range rnd.Perm(k + m)[:m+1] {
		for _, rule := range how.rules {
			f.faults[i].Add(rule)
		}
	}
	var err error
	for i := 0; err == nil; i++ {
		if i == 10000 {
			t.Fatal("no error")
		}
		err = s.try(v, zero)
	}
	if err := v.Flush(); err == nil {
		t.Error("flush works on a failed log")
	}
	if block.Errno(err) == 0 || errors.Is(err, block.ErrNoSpace) && how.name != "no space" {
		t.Errorf("error %v", err)
	}
	if l.Stats().State != StateFailed {
		t.Errorf("state %s", l.Stats().State)
	}
	_ = l.Close()
	f.heal()
	l = mustOpen(t, f.disks, Options{Events: func(Event) {}})
	v = openVolume(t, l, "v")
	if err := s.isPrefix(s.versions(v), 0); err != nil {
		t.Fatal(err)
	}
	repair(t, l, f)
	must(t, l.Close())
}
