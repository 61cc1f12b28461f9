package logvolume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"torpor/block"
)

// TestConcurrent has goroutines write areas of their own, of two volumes, read, flush
// and discard, while others make and remove snapshots, check, scrub and write
// checkpoints, in a log that is nearly full.
func TestConcurrent(t *testing.T) {
	watchdog(t, 2*time.Minute)
	rnd := testSeed(t)
	disks := unclosable(memoryDisks(4, 60))
	must(t, Create(disks, testSpec(2, 2)))
	o := quietly
	o.DirtyBytes, o.CheckpointBytes = 2<<20, 2<<20
	l := mustOpen(t, disks, o)
	const writers, areaBlocks = 6, 300
	for _, name := range []string{"a", "b"} {
		must(t, l.CreateVolume(name, writers*areaBlocks*4096))
	}
	var work, others sync.WaitGroup
	stop := make(chan struct{})
	var volumes []*Volume
	for _, name := range []string{"a", "b"} {
		v := openVolume(t, l, name)
		volumes = append(volumes, v)
		for w := range writers {
			area := &area{v: v, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0)), first: w * areaBlocks, holds: make([]uint64, areaBlocks)}
			work.Go(func() {
				for range 300 * *roundsFlag {
					if err := area.step(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	again := func(pause time.Duration, do func() error) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				if err := do(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	n := 0
	again(time.Millisecond, func() error {
		n++
		name := fmt.Sprintf("s%d", n)
		return errors.Join(l.Snapshot("a", name), l.Clone("a", name, "c"+name), l.Remove("a", name), l.Remove("c"+name, ""))
	})
	again(5*time.Millisecond, func() error {
		r, err := l.Check(t.Context(), false, nil)
		if err == nil && !r.OK() {
			err = fmt.Errorf("check: %+v", r)
		}
		return err
	})
	again(3*time.Millisecond, l.checkpoint)
	again(time.Millisecond, func() error { l.Stats(); l.Volumes(); return nil })
	work.Wait()
	close(stop)
	others.Wait()
	for _, v := range volumes {
		must(t, v.Close())
	}
	must(t, l.Close())
}

// area is a part of a volume that one goroutine writes.
type area struct {
	v     *Volume
	rnd   *rand.Rand
	first int
	holds []uint64 // what each block holds again and again; 0: zeros
}

func (a *area) step() error {
	n := 1 + a.rnd.IntN(20)
	at := a.rnd.IntN(len(a.holds) - n + 1)
	off := block.Offset(a.first+at) * 4096
	p := make([]byte, n*4096)
	switch what := a.rnd.IntN(10); {
	case what < 5:
		for i := range n {
			a.holds[at+i] = a.rnd.Uint64()
			repeat(p[i*4096:(i+1)*4096], a.holds[at+i])
		}
		err := a.v.WriteAt(p, off, 0)
		for errors.Is(err, block.ErrNoSpace) {
			// A snapshot takes the space; it will be removed.
			time.Sleep(time.Millisecond)
			err = a.v.WriteAt(p, off, 0)
		}
		return err
	case what < 6:
		clear(a.holds[at : at+n])
		return a.v.Discard(block.Range{Start: off, LenBytes: int64(n) * 4096}, 0)
	case what < 7:
		return a.v.Flush()
	}
	if err := a.v.ReadAt(p, off); err != nil {
		return err
	}
	want := make([]byte, 4096)
	for i := range n {
		repeat(want, a.holds[at+i])
		if !bytes.Equal(p[i*4096:(i+1)*4096], want) {
			return fmt.Errorf("block %d is not what was written", a.first+at+i)
		}
	}
	return nil
}

func repeat(p []byte, x uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], x)
	}
}
