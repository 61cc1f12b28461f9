package block_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"torpor/block"
)

// TestRangeLock counts who is inside which cell.
func TestRangeLock(t *testing.T) {
	var l block.RangeLock
	var inside [16]int // by cell; the lock keeps accesses apart
	var done sync.WaitGroup
	for w := range 8 {
		r := rand.New(rand.NewPCG(uint64(w), 0))
		done.Go(func() {
			for range 2000 {
				from := r.IntN(len(inside))
				to := from + r.IntN(len(inside)-from)
				unlock := l.Lock(block.Range{Start: block.Offset(from), LenBytes: int64(to - from)})
				for i := from; i < to; i++ {
					if inside[i]++; inside[i] != 1 {
						t.Errorf("%d are inside cell %d", inside[i], i)
					}
				}
				for i := from; i < to; i++ {
					inside[i]--
				}
				unlock()
			}
		})
	}
	done.Wait()
}

// TestRangeLockIsFair has a long range wait for one, and be waited for by another.
func TestRangeLockIsFair(t *testing.T) {
	var l block.RangeLock
	first := l.Lock(block.Range{LenBytes: 2})
	l.Lock(block.Range{Start: 2, LenBytes: 1})() // a neighbour
	l.Lock(block.Range{Start: 1})()              // nothing
	var order []string
	var done sync.WaitGroup
	queued := make(chan struct{})
	done.Go(func() {
		close(queued)
		unlock := l.Lock(block.Range{LenBytes: 10})
		order = append(order, "long")
		unlock()
	})
	<-queued
	order = append(order, "first")
	first()
	done.Wait()
	if len(order) != 2 || order[0] != "first" {
		t.Errorf("order %v", order)
	}
}
