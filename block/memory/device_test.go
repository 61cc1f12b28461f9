package memory_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/block"
	"torpor/block/memory"
)

func TestSpec(t *testing.T) {
	for _, s := range []memory.Spec{
		{SizeBytes: -4096},
		{SizeBytes: 4097},
		{SizeBytes: 4096, BlockBytes: 3},
		{SizeBytes: 4096, BlockBytes: -1},
		{SizeBytes: 4 << 20, BlockBytes: 2 << 20},
	} {
		if _, err := memory.New(s); err == nil {
			t.Errorf("made %+v", s)
		}
	}
	d, err := memory.New(memory.Spec{SizeBytes: 1 << 40, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	if info := d.Info(); !info.Volatile || info.BlockBytes != 4096 || info.SizeBytes != 1<<40 {
		t.Errorf("%+v", info)
	}
}

// TestThin looks at what takes space.
func TestThin(t *testing.T) {
	d, err := memory.New(memory.Spec{SizeBytes: 1 << 40, BlockBytes: 512})
	if err != nil {
		t.Fatal(err)
	}
	const at = 1<<39 - 512 // the last sector of a span
	if err := d.WriteAt(bytes.Repeat([]byte{7}, 1024), at, 0); err != nil {
		t.Fatal(err)
	}
	want := []block.Extent{
		{Range: block.Range{Start: at - 7680, LenBytes: 4096}, Kind: block.Hole},
		{Range: block.Range{Start: at - 3584, LenBytes: 8192}, Kind: block.Data},
		{Range: block.Range{Start: at + 4608, LenBytes: 4096}, Kind: block.Hole},
	}
	got, err := d.Status(block.Range{Start: at - 7680, LenBytes: 16384})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := d.AllocatedBytes(); n != 8192 {
		t.Errorf("%d bytes allocated", n)
	}
	if err := errors.Join(d.Discard(block.Range{Start: at, LenBytes: 512}, 0), d.Zero(block.Range{Start: at + 512, LenBytes: 512}, 0)); err != nil {
		t.Fatal(err)
	}
	if n := d.AllocatedBytes(); n != 0 {
		t.Errorf("%d bytes allocated after all is zeros", n)
	}
}
