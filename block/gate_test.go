package block_test

import (
	"errors"
	"sync"
	"testing"

	"torpor/block"
)

func TestGate(t *testing.T) {
	var g block.Gate
	if err := g.Enter(); err != nil {
		t.Fatal(err)
	}
	var closed sync.WaitGroup
	left := false
	closed.Go(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if !left {
			t.Error("closed with a call inside")
		}
	})
	left = true
	g.Leave()
	closed.Wait()
	if err := g.Enter(); !errors.Is(err, block.ErrClosed) {
		t.Errorf("entered a closed gate: %v", err)
	}
	if err := g.Close(); !errors.Is(err, block.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

func TestAlignedBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 12345, 1 << 20} {
		b := block.AlignedBuffer(n)
		if len(b) != n || cap(b) != n || n > 0 && !block.Aligned(b) {
			t.Errorf("%d bytes: length %d, capacity %d, aligned %v", n, len(b), cap(b), block.Aligned(b))
		}
	}
	if block.Aligned(block.AlignedBuffer(2)[1:]) {
		t.Error("an odd address is aligned")
	}
}

func TestCheckVector(t *testing.T) {
	info := block.Info{SizeBytes: 64 << 10, BlockBytes: 4096}
	r, err := info.CheckVector([][]byte{make([]byte, 4096), nil, make([]byte, 8192)}, 4096)
	if want := (block.Range{Start: 4096, LenBytes: 12288}); err != nil || r != want {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := info.CheckVector([][]byte{make([]byte, 2048), make([]byte, 2048)}, 0); !errors.Is(err, block.ErrAlignment) {
		t.Errorf("buffers of half a block: %v", err)
	}
	if _, err := info.CheckVector([][]byte{make([]byte, 64<<10), make([]byte, 4096)}, 0); !errors.Is(err, block.ErrRange) {
		t.Errorf("longer than the device: %v", err)
	}
	if err := info.Check(block.Range{Start: 1 << 62, LenBytes: 1<<63 - 1}); !errors.Is(err, block.ErrRange) {
		t.Errorf("a range that overflows: %v", err)
	}
}
