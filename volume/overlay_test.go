package volume

import (
	"bytes"
	"errors"
	"testing"

	"torpor/block"
	"torpor/block/memory"
)

// TestOverlayWritesNothing changes an overlay in all ways: it reads as changed,
// and the device below is as it was.
func TestOverlayWritesNothing(t *testing.T) {
	below, err := memory.New(memory.Spec{SizeBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	ones := bytes.Repeat([]byte{1}, 64<<10)
	if err := below.WriteAt(ones, 0, 0); err != nil {
		t.Fatal(err)
	}
	o := newOverlay(below)
	twos := bytes.Repeat([]byte{2}, 8<<10)
	err = errors.Join(o.WriteAt(twos, 4<<10, block.FUA), o.Zero(block.Range{Start: 16 << 10, LenBytes: 8 << 10}, 0),
		o.Discard(block.Range{Start: 32 << 10, LenBytes: 4 << 10}, 0), o.Flush())
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(ones)
	copy(want[4<<10:], twos)
	clear(want[16<<10 : 24<<10])
	clear(want[32<<10 : 36<<10])
	got := make([]byte, 64<<10)
	if err := o.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("overlay reads otherwise, %v", err)
	}
	if err := below.ReadAt(got, 0); err != nil || !bytes.Equal(got, ones) {
		t.Errorf("device below has changed, %v", err)
	}
	for _, err := range []error{o.WriteAt(twos, 60<<10, 0), o.Zero(block.Range{Start: 64 << 10, LenBytes: 4096}, 0)} {
		if !errors.Is(err, block.ErrRange) {
			t.Errorf("beyond the end: %v", err)
		}
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}
