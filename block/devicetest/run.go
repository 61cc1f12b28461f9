package devicetest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"torpor/block"
)

// SeedVariable is the environment variable with a seed to repeat.
const SeedVariable = "TORPOR_DEVICE_SEED"

// Options say what else can be done with a kind of device.
type Options struct {
	// Reopen closes a device and opens it again. Without it, that content
	// outlives the device is not tested.
	Reopen func(t testing.TB, d block.Device) block.Device
	// Crash ends a device without closing it in order, and opens what is left
	// then; different results for different values of r are welcome. No call is
	// under way. Without it crashes are not tested.
	Crash func(t testing.TB, d block.Device, r *rand.Rand) block.Device
	// Steps is how many operations random tests make; 0: 400.
	Steps int
}

// areaBytes is how much of a device is used, from its start.
const areaBytes = 4 << 20

// suite is one test of one device.
type suite struct {
	testing.TB
	d    block.Device
	o    Options
	info block.Info
	area int64 // bytes from the start of the device that are used
	rand *rand.Rand
}

// Run runs all tests that the options allow. Each gets a fresh device, which it
// closes; it may hold any content, and at least 64 KiB.
func Run(t *testing.T, fresh func(t testing.TB) block.Device, o Options) {
	if o.Steps == 0 {
		o.Steps = 400
	}
	tests := []struct {
		name string
		need bool
		run  func(s *suite)
	}{
		{"Info", true, (*suite).testInfo},
		{"Refusals", true, (*suite).testRefusals},
		{"Random", true, (*suite).testRandom},
		{"Big", true, (*suite).testBig},
		{"Ends", true, (*suite).testEnds},
		{"Disjoint", true, (*suite).testDisjoint},
		{"Overlap", true, (*suite).testOverlap},
		{"StartedReads", true, (*suite).testStartedReads},
		{"StartedWrites", true, (*suite).testStartedWrites},
		{"Close", true, (*suite).testClose},
		{"CloseWaits", true, (*suite).testCloseWaits},
		{"Reopen", o.Reopen != nil, (*suite).testReopen},
		{"Crash", o.Crash != nil, (*suite).testCrash},
	}
	for _, test := range tests {
		if test.need {
			t.Run(test.name, func(t *testing.T) { test.run(begin(t, fresh(t), o)) })
		}
	}
}

func begin(t testing.TB, d block.Device, o Options) *suite {
	seed := rand.Uint64()
	if text := os.Getenv(SeedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", SeedVariable, err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with %s=%d", SeedVariable, seed)
		}
	})
	info := d.Info()
	s := &suite{TB: t, d: d, o: o, info: info, rand: rand.New(rand.NewPCG(seed, 0))}
	s.area = min(info.SizeBytes, areaBytes) &^ int64(info.BlockBytes-1)
	if s.area < 64<<10 {
		t.Fatalf("a device of %d bytes is too small to test", info.SizeBytes)
	}
	return s
}

// must ends the test after an error.
func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// end closes the device.
func (s *suite) end() {
	s.Helper()
	s.must(s.d.Close())
}

// place chooses a range within the area, of up to maxBytes and a block at least.
func (s *suite) place(maxBytes int64) block.Range {
	unit := int64(s.info.BlockBytes)
	n := 1 + s.rand.Int64N(max(1, min(maxBytes, s.area)/unit))
	start := s.rand.Int64N(s.area/unit - n + 1)
	return block.Range{Start: block.Offset(start * unit), LenBytes: n * unit}
}

// memory returns n bytes at an odd address, sometimes.
func (s *suite) memory(n int64) []byte {
	skip := s.rand.IntN(2)
	return make([]byte, n+1)[skip : int64(skip)+n]
}

// noise returns n random bytes.
func (s *suite) noise(n int64) []byte {
	b := s.memory(n)
	fillNoise(s.rand, b)
	return b
}

func fillNoise(r *rand.Rand, b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		x := r.Uint64()
		for i := range 8 {
			b[i] = byte(x >> (8 * i))
		}
	}
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// cut cuts b into buffers of whole blocks, some of them empty.
func (s *suite) cut(b []byte) [][]byte {
	var p [][]byte
	for len(b) > 0 {
		blocks := s.rand.IntN(min(len(b)/s.info.BlockBytes, 1+s.rand.IntN(64)) + 1)
		n := blocks * s.info.BlockBytes
		p, b = append(p, b[:n]), b[n:]
	}
	return append(p, b)
}
