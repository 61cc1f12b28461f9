package logvolume

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestSpareLateDisks has more disks be late at one moment than can be spared.
func TestSpareLateDisks(t *testing.T) {
	for range 50 {
		l, v := newTestLog(t, memoryDisks(3, 34), testSpec(2, 1), 1<<20)
		var late sync.WaitGroup
		for _, d := range l.disks {
			late.Go(func() { l.putOutLate(d) })
		}
		late.Wait()
		if n := len(l.usable(l.disks)); n != 2 {
			t.Fatalf("%d disks are left", n)
		}
		must(t, v.Flush())
		must(t, l.Close())
	}
}

// TestTooFewShardsOfOpenSegment: a disk is replaced and not yet filled, so that a
// segment that is written to lacks a shard. As many more are lost as the layout
// bears: what is in that segment only can not be read, and must not become durable.
func TestTooFewShardsOfOpenSegment(t *testing.T) {
	watchdog(t, time.Minute)
	world := &model{testSeed(t), make([]byte, 2<<20)}
	l, v := newTestLog(t, memoryDisks(6, 34), testSpec(4, 2), int64(len(world.data)))
	world.fillAll(t, v)
	must(t, v.Flush())
	world.step(t, v)
	l.putOut(l.disks[1], errors.New("it is gone"))
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.ReplaceDisk(stopped, "m1", memoryDisks(1, 34)[0], nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("replace: %v", err)
	}
	must(t, v.WriteAt(make([]byte, 4096), 0, 0))
	l.mu.Lock()
	lacking := 0
	for _, s := range l.segments {
		if s != nil && s.state == open && l.shardsWithout(s, l.disks[2]) < 5 && s.columns > 0 {
			lacking++
		}
	}
	l.mu.Unlock()
	l.putOut(l.disks[2], errors.New("it is gone"))
	l.putOut(l.disks[3], errors.New("it is gone"))
	err := v.Flush()
	if lacking == 0 || err == nil {
		t.Errorf("flushed with %d segments that are written to and can not be read: %v", lacking, err)
	}
	_ = l.Close()
}
