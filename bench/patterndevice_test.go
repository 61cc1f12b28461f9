package bench

import (
	"testing"

	"torpor/block"
	"torpor/block/devicetest"
	"torpor/block/memory"
)

// TestPatternDevice has inner blocks, patterns and zeros in the same requests.
func TestPatternDevice(t *testing.T) {
	d := newPatternDevice(memoryDevice(t))
	defer d.Close()
	want := block.AlignedBuffer(600 * block.BlockBytes)
	for i := range 600 {
		b := want[i*block.BlockBytes:][:block.BlockBytes]
		if i%3 > 0 {
			fillPattern(b, uint64(i)<<33)
		}
		if i%7 == 0 {
			b[i] ^= 1
		}
	}
	const at = 100 * block.BlockBytes
	if err := d.WriteAt(want, at, 0); err != nil {
		t.Fatal(err)
	}
	again := d.open(d.Device)
	got := block.AlignedBuffer(len(want))
	if err := again.ReadAt(got, at); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("read something else than was written")
	}
	if n := d.Device.(*memory.Device).AllocatedBytes(); n != 86*block.BlockBytes {
		t.Errorf("%d bytes are on the inner device", n)
	}
}

func TestPatternDeviceIsADevice(t *testing.T) {
	devicetest.Run(t, func(t testing.TB) block.Device { return newPatternDevice(memoryDevice(t)) }, devicetest.Options{})
}

func memoryDevice(t testing.TB) block.Device {
	d, err := memory.New(memory.Spec{SizeBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
