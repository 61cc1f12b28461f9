package fault

import (
	"sync/atomic"
	"time"

	"torpor/block"
)

// Ops is a set of kinds of request.
type Ops uint8

// Kinds of request.
const (
	Read Ops = 1 << iota
	Write
	Zero
	Discard
	Flush
	Status

	Change = Write | Zero | Discard
	All    = Read | Change | Flush | Status
)

// Rule says which requests meet which fault. Requests that the device would
// refuse meet none.
type Rule struct {
	Ops Ops // 0: All
	// Range is met by requests that touch it, and by flushes; an empty one by all.
	Range block.Range
	// Of the requests that match by Ops and Range, the first Skip pass, and then
	// those that fit in SkipBytes altogether.
	Skip      int
	SkipBytes int64
	// Rate is the chance of the others, up to 1; 0: 1.
	Rate float64
	// Count is how many requests meet the fault, after which the rule is spent;
	// 0: no limit.
	Count  int
	Action Action
}

// Action is what happens to a request. It may be several things, in this order;
// of several rules that a request meets all happen. The zero Action only counts.
type Action struct {
	// Delay, and a random time up to Jitter more, passes first.
	Delay, Jitter time.Duration
	// Hang waits until the rule is removed.
	Hang bool
	// ShiftBytes has reads, writes, zeros and discards go to another place, a
	// multiple of the device's block away, around the end of the device.
	ShiftBytes int64
	// FlipBits changes so many bits, at random places, of what is read, or of
	// what is written: that damage stays.
	FlipBits int
	// Tear has only some of the sectors (512 bytes, or smaller blocks) of a write
	// arrive, and of zeros and discards only some blocks in front.
	Tear bool
	// Lose does nothing of a change or flush, and says that it was done.
	Lose bool
	// Err is what the request ends with. Nothing of it is done, unless Done.
	Err  error
	Done bool
}

// Fault is a rule that is in force.
type Fault struct {
	rule    Rule
	device  *Device
	removed chan struct{}
	hits    atomic.Int64

	// Below the device's mu:
	skipped      int
	skippedBytes int64
}

// Hits is how many requests met the fault.
func (f *Fault) Hits() int { return int(f.hits.Load()) }

// Remove ends the rule: requests that hang by it go on.
func (f *Fault) Remove() { f.device.remove(f) }

// meets decides whether a request meets the fault; the device's mu is held.
func (f *Fault) meets(op Ops, r block.Range) bool {
	rule := &f.rule
	if rule.Ops&op == 0 || op != Flush && rule.Range.LenBytes > 0 && !touch(rule.Range, r) {
		return false
	}
	if f.skipped < rule.Skip {
		f.skipped++
		return false
	}
	if rule.SkipBytes > 0 && f.skippedBytes+r.LenBytes <= rule.SkipBytes {
		f.skippedBytes += r.LenBytes
		return false
	}
	if rule.Rate > 0 && f.device.random.Float64() >= rule.Rate {
		return false
	}
	if rule.Count > 0 && f.hits.Load() >= int64(rule.Count) {
		return false
	}
	f.hits.Add(1)
	return true
}

func touch(a, b block.Range) bool {
	return max(a.Start, b.Start) < min(a.End(), b.End())
}
