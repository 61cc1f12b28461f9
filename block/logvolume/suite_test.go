package logvolume

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"torpor/block"
	"torpor/block/devicetest"
)

// volumeOf is a volume that closes its log with it.
type volumeOf struct {
	*Volume
	disks []Disk
}

func (v volumeOf) Close() error {
	if err := v.Volume.Close(); err != nil {
		return err
	}
	return v.log.Close()
}

func openSuiteVolume(t testing.TB, disks []Disk) volumeOf {
	t.Helper()
	l := mustOpen(t, disks, Options{})
	v, err := l.OpenVolume("v")
	if err != nil {
		t.Fatal(err)
	}
	return volumeOf{v, disks}
}

// crash leaves the log to itself, and opens what its disks hold now in part: a
// copy, without what it keeps in memory.
func (v volumeOf) crash(t testing.TB, _ *rand.Rand) block.Device {
	copies := crash(t, v.log, v.disks)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return openSuiteVolume(t, copies)
}

func TestSuite(t *testing.T) {
	for _, layout := range [][2]int{{1, 0}, {4, 2}, {1, 2}} {
		t.Run(fmt.Sprintf("%d+%d", layout[0], layout[1]), func(t *testing.T) {
			devicetest.Run(t, func(t testing.TB) block.Device {
				disks := unclosable(memoryDisks(layout[0]+layout[1], 24+40/layout[0]))
				l, v := newTestLog(t, disks, testSpec(layout[0], layout[1]), 6<<20)
				_ = l
				return volumeOf{v, disks}
			}, devicetest.Options{
				Reopen: func(t testing.TB, d block.Device) block.Device {
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
					return openSuiteVolume(t, d.(volumeOf).disks)
				},
				Crash: func(t testing.TB, d block.Device, r *rand.Rand) block.Device { return d.(volumeOf).crash(t, r) },
			})
		})
	}
}
