package fault_test

import (
	"bytes"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"torpor/block"
	"torpor/block/devicetest"
	"torpor/block/fault"
	"torpor/block/memory"
)

const unit = 4096

func newDevice(t testing.TB) (*fault.Device, *memory.Device) {
	t.Helper()
	below, err := memory.New(memory.Spec{SizeBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return fault.New(below), below
}

func TestSuite(t *testing.T) {
	devicetest.Run(t, func(t testing.TB) block.Device {
		d, _ := newDevice(t)
		d.Add(fault.Rule{}) // only counts
		return d
	}, devicetest.Options{})
}

func pattern(b byte, blocks int) []byte { return bytes.Repeat([]byte{b}, blocks*unit) }

func read(t *testing.T, d block.Device, off block.Offset, blocks int) []byte {
	t.Helper()
	b := make([]byte, blocks*unit)
	if err := d.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, d block.Device, b []byte, off block.Offset) {
	t.Helper()
	if err := d.WriteAt(b, off, 0); err != nil {
		t.Fatal(err)
	}
}

// requests makes one of each kind at a place.
var requests = map[fault.Ops]func(d block.Device, off block.Offset) error{
	fault.Read:  func(d block.Device, off block.Offset) error { return d.ReadAt(make([]byte, unit), off) },
	fault.Write: func(d block.Device, off block.Offset) error { return d.WriteAt(pattern(9, 1), off, 0) },
	fault.Zero: func(d block.Device, off block.Offset) error {
		return d.Zero(block.Range{Start: off, LenBytes: unit}, 0)
	},
	fault.Discard: func(d block.Device, off block.Offset) error {
		return d.Discard(block.Range{Start: off, LenBytes: unit}, 0)
	},
	fault.Flush: func(d block.Device, _ block.Offset) error { return d.Flush() },
	fault.Status: func(d block.Device, off block.Offset) error {
		_, err := d.Status(block.Range{Start: off, LenBytes: unit})
		return err
	},
}

// TestErr fails each kind of request, which does nothing then.
func TestErr(t *testing.T) {
	for op := range requests {
		d, below := newDevice(t)
		write(t, below, pattern(1, 1), 0)
		f := d.Add(fault.Rule{Ops: op, Action: fault.Action{Err: syscall.ETIMEDOUT}})
		for other, do := range requests {
			if err := do(d, unit); errors.Is(err, syscall.ETIMEDOUT) != (op == other) {
				t.Errorf("rule for %d, request %d: %v", op, other, err)
			}
		}
		if err := requests[op](d, 0); !errors.Is(err, syscall.ETIMEDOUT) || !bytes.Equal(read(t, below, 0, 1), pattern(1, 1)) {
			t.Errorf("request %d: %v, or it was done", op, err)
		}
		f.Remove()
		f.Remove()
		if err := requests[op](d, 0); err != nil || f.Hits() != 2 {
			t.Errorf("request %d after removal: %v, %d hits", op, err, f.Hits())
		}
	}
}

// TestErrDone fails a write that was done.
func TestErrDone(t *testing.T) {
	d, below := newDevice(t)
	d.Add(fault.Rule{Action: fault.Action{Err: syscall.EIO, Done: true}})
	if err := d.WriteAt(pattern(1, 1), 0, 0); !errors.Is(err, syscall.EIO) || !bytes.Equal(read(t, below, 0, 1), pattern(1, 1)) {
		t.Errorf("%v, or it was not done", err)
	}
}

// TestWhich fails some requests: by place, number, bytes and chance.
func TestWhich(t *testing.T) {
	const n = 20
	failures := func(r fault.Rule) []int {
		d, _ := newDevice(t)
		r.Action.Err = block.ErrNoSpace
		d.Add(r)
		var failed []int
		for i := range n {
			if err := d.WriteAt(pattern(1, 2), block.Offset(i*unit), 0); errors.Is(err, block.ErrNoSpace) {
				failed = append(failed, i)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if d.WriteAt(pattern(1, 2), 1, 0) == nil || d.Flush() != nil {
			t.Error("a refused write, or a flush, met the rule")
		}
		return failed
	}
	for name, test := range map[string]struct {
		rule fault.Rule
		want []int
	}{
		"range":       {fault.Rule{Ops: fault.Write, Range: block.Range{Start: 5*unit + 100, LenBytes: 1}}, []int{4, 5}},
		"skip, count": {fault.Rule{Ops: fault.Write, Skip: 3, Count: 2}, []int{3, 4}},
		"full":        {fault.Rule{Ops: fault.Change, SkipBytes: 33 * unit}, []int{16, 17, 18, 19}},
		"other":       {fault.Rule{Ops: fault.Read}, nil},
	} {
		if got := failures(test.rule); !slices.Equal(got, test.want) {
			t.Errorf("%s: failed %v, not %v", name, got, test.want)
		}
	}
	some := failures(fault.Rule{Ops: fault.Write, Rate: 0.5})
	if len(some) == 0 || len(some) == n {
		t.Errorf("rate: failed %v", some)
	}
	if again := failures(fault.Rule{Ops: fault.Write, Rate: 0.5}); !slices.Equal(some, again) {
		t.Errorf("rate: failed %v, and then %v", some, again)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := newDevice(t)
		d.Add(fault.Rule{Ops: fault.Read, Action: fault.Action{Delay: time.Hour, Jitter: time.Minute}})
		d.Add(fault.Rule{Ops: fault.Read, Action: fault.Action{Delay: time.Hour}})
		start := time.Now()
		read(t, d, 0, 1)
		if took := time.Since(start); took < 2*time.Hour || took > 2*time.Hour+time.Minute {
			t.Errorf("read took %v", took)
		}
		start = time.Now()
		write(t, d, pattern(1, 1), 0)
		if took := time.Since(start); took != 0 {
			t.Errorf("write took %v", took)
		}
	})
}

// TestHang hangs a write until all rules are removed; Close waits for it.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, below := newDevice(t)
		d.Add(fault.Rule{Ops: fault.Write, Action: fault.Action{Hang: true}})
		var done sync.WaitGroup
		ended := false
		done.Go(func() {
			write(t, d, pattern(1, 1), 0)
			ended = true
		})
		synctest.Wait()
		if ended || !bytes.Equal(read(t, d, 0, 1), pattern(0, 1)) {
			t.Error("the write was done")
		}
		d.Clear()
		done.Wait()
		if !bytes.Equal(read(t, below, 0, 1), pattern(1, 1)) {
			t.Error("the write was not done")
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestLose(t *testing.T) {
	d, below := newDevice(t)
	write(t, d, pattern(1, 1), 0)
	f := d.Add(fault.Rule{Action: fault.Action{Lose: true}})
	for _, op := range []fault.Ops{fault.Write, fault.Zero, fault.Discard, fault.Flush} {
		if err := requests[op](d, 0); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(read(t, below, 0, 1), pattern(1, 1)) || f.Hits() != 4 {
		t.Errorf("something was done; %d hits", f.Hits())
	}
	if !bytes.Equal(read(t, d, 0, 1), pattern(1, 1)) {
		t.Error("a read was lost")
	}
}

func TestShift(t *testing.T) {
	d, below := newDevice(t)
	f := d.Add(fault.Rule{Ops: fault.Change | fault.Read, Action: fault.Action{ShiftBytes: 2 * unit}})
	write(t, d, pattern(1, 1), unit)
	write(t, d, pattern(2, 1), 4<<20-unit)
	if !bytes.Equal(read(t, below, 0, 4), slices.Concat(pattern(0, 1), pattern(2, 1), pattern(0, 1), pattern(1, 1))) {
		t.Error("went elsewhere")
	}
	if !bytes.Equal(read(t, d, unit, 1), pattern(1, 1)) {
		t.Error("read elsewhere")
	}
	if err := d.Discard(block.Range{Start: unit, LenBytes: unit}, 0); err != nil {
		t.Error(err)
	}
	f.Remove()
	if !bytes.Equal(read(t, d, 3*unit, 1), pattern(0, 1)) || !bytes.Equal(read(t, d, unit, 1), pattern(2, 1)) {
		t.Error("discarded elsewhere")
	}
}

func ones(b []byte) (n int) {
	for _, x := range b {
		n += bits.OnesCount8(x)
	}
	return n
}

func TestFlipBits(t *testing.T) {
	d, below := newDevice(t)
	f := d.Add(fault.Rule{Ops: fault.Read, Action: fault.Action{FlipBits: 3}})
	if n := ones(read(t, d, 0, 2)); n != 3 {
		t.Errorf("%d bits of what is read are wrong", n)
	}
	f.Remove()
	if n := ones(read(t, d, 0, 2)); n != 0 {
		t.Errorf("%d bits stay wrong", n)
	}
	f = d.Add(fault.Rule{Ops: fault.Write, Action: fault.Action{FlipBits: 5}})
	ours := pattern(0, 2)
	if err := d.WriteVectorAt([][]byte{ours[:unit], ours[unit:]}, 0, 0); err != nil {
		t.Fatal(err)
	}
	if n := ones(read(t, below, 0, 2)); n != 5 || ones(ours) != 0 {
		t.Errorf("%d bits of what was written are wrong, %d of the caller's", n, ones(ours))
	}
	f.Remove()
	write(t, d, ours, 0)
	if err := d.Damage(block.Range{Start: unit, LenBytes: unit}, 7); err != nil {
		t.Fatal(err)
	}
	if n := ones(read(t, below, unit, 1)); n != 7 || ones(read(t, below, 0, 1)) != 0 {
		t.Errorf("%d bits are damaged", n)
	}
}

func TestTear(t *testing.T) {
	d, below := newDevice(t)
	write(t, d, pattern(1, 2), 0)
	d.Add(fault.Rule{Action: fault.Action{Tear: true}})
	for round := range 20 {
		mark := byte(round + 2)
		held := read(t, below, 0, 2)
		write(t, d, pattern(mark, 2), 0)
		kept, arrived := 0, 0
		b := read(t, below, 0, 2)
		for at := 0; at < len(b); at += 512 {
			switch sector := b[at : at+512]; {
			case bytes.Equal(sector, held[at:at+512]):
				kept++
			case bytes.Equal(sector, pattern(mark, 2)[:512]):
				arrived++
			}
		}
		if kept == 0 || kept+arrived != len(b)/512 {
			t.Errorf("round %d: %d sectors kept, %d arrived", round, kept, arrived)
		}
	}
	if err := d.Zero(block.Range{LenBytes: 2 * unit}, 0); err != nil {
		t.Error(err)
	}
	if bytes.Equal(read(t, below, unit, 1), pattern(0, 1)) {
		t.Error("zeros were not torn")
	}
}
