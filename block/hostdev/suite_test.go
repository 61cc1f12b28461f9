package hostdev

import (
	"testing"

	"torpor/block"
	"torpor/block/backing"
	"torpor/block/devicetest"
	"torpor/internal/kerneltest"
)

// TestSuite runs what every device has to pass on the exported device, opened
// as a disk.
func TestSuite(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	e := attach(t, newDevice(t, 8<<20), Spec{})
	open := func(t testing.TB) block.Device {
		d, err := backing.OpenFile(e.Path(), backing.Options{Direct: true})
		if err != nil {
			t.Fatal(err)
		}
		if !d.Direct() {
			t.Error("no direct I/O")
		}
		return d
	}
	reopen := func(t testing.TB, d block.Device) block.Device {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t)
	}
	devicetest.Run(t, open, devicetest.Options{Reopen: reopen, Steps: 200})
}
