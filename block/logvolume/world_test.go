package logvolume

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"torpor/block"
	"torpor/block/fault"
	"torpor/block/memory"
)

// watchdog ends the test binary with all stacks if the test hangs: if it takes so
// long, times -rounds.
func watchdog(t testing.TB, patience time.Duration) {
	t.Helper()
	timer := time.AfterFunc(patience*time.Duration(*roundsFlag), func() {
		b := make([]byte, 4<<20)
		fmt.Fprintf(os.Stderr, "%s hangs\n%s\n", t.Name(), b[:runtime.Stack(b, true)])
		os.Exit(3)
	})
	t.Cleanup(func() { timer.Stop() })
}

// testSeed is the seed of a random test: the flag's, or a new one, which is logged.
func testSeed(t testing.TB) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 3))
}

// faulty are disks that can be made to fail.
type faulty struct {
	disks  []Disk
	faults []*fault.Device
}

// faultyDisks wraps disks, which stay open when a log closes them.
func faultyDisks(disks []Disk) *faulty {
	f := &faulty{}
	for _, d := range disks {
		device := fault.New(d.Device)
		f.faults = append(f.faults, device)
		f.disks = append(f.disks, Disk{d.Name, unclosed{device}})
	}
	return f
}

// crash copies what the disks of a log hold at a moment at which nothing is written:
// what a crash of the process would leave. Nobody uses the log meanwhile.
func crash(t testing.TB, l *Log, disks []Disk) []Disk {
	t.Helper()
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	l.checkpointMu.Lock()
	defer l.checkpointMu.Unlock()
	l.mu.Lock()
	for l.inFlight > 0 || l.flushing {
		l.progress.Wait()
	}
	l.mu.Unlock()
	return copyDisks(t, disks)
}

// copyDisks copies what disks hold. No log writes to them meanwhile.
func copyDisks(t testing.TB, disks []Disk) []Disk {
	t.Helper()
	copies := make([]Disk, len(disks))
	b := block.AlignedBuffer(1 << 20)
	for i, d := range disks {
		c, err := memory.New(memory.Spec{SizeBytes: d.Device.Info().SizeBytes})
		if err != nil {
			t.Fatal(err)
		}
		extents, err := d.Device.Status(block.Range{LenBytes: d.Device.Info().SizeBytes})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range extents {
			for at := e.Start; e.Kind == block.Data && at < e.End(); at += block.Offset(len(b)) {
				p := b[:min(int64(len(b)), int64(e.End()-at))]
				if err := d.Device.ReadAt(p, at); err != nil {
					t.Fatal(err)
				}
				if err := c.WriteAt(p, at, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		copies[i] = Disk{d.Name, unclosed{c}}
	}
	return copies
}

func openVolume(t testing.TB, l *Log, name string) *Volume {
	t.Helper()
	v, err := l.OpenVolume(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
