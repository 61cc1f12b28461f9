package unique

import (
	"fmt"
	"slices"
	"time"

	"torpor/host"
	"torpor/kernel/proc"
)

// Bounds of what a Spec may make Renew do.
const (
	mostCalls = 16
	mostSteps = 8        // of a Call
	mostArgs  = 6        // of a Step
	mostBytes = 16 << 20 // of a Place of random bytes
	mostTotal = 1 << 30
	// renewLimit is how long all calls of a process may take.
	renewLimit = 5 * CallLimit
)

// Range is memory of a process; End is excluded.
type Range struct{ Start, End proc.Addr }

// Validate checks that a Spec is one that Find could have given for a process
// with this memory: private is what only the process itself writes, code what it
// can execute. Errors match host.ErrCorrupt.
func (s *Spec) Validate(private, code []Range) error {
	if len(s.Places) > mostPlaces || len(s.Calls) > mostCalls {
		return fmt.Errorf("validate random state: %d places, %d calls: %w", len(s.Places), len(s.Calls), host.ErrCorrupt)
	}
	memory, total := merge(private), uint64(0)
	for i := range s.Places {
		p := &s.Places[i]
		if !p.valid(memory) {
			return fmt.Errorf("validate random state: place at %x, %q: %w", uint64(p.Addr), p.Kind, host.ErrCorrupt)
		}
		if total += p.size(); total > mostTotal {
			return fmt.Errorf("validate random state: %d bytes: %w", total, host.ErrCorrupt)
		}
	}
	functions := merge(code)
	for i := range s.Calls {
		if !s.Calls[i].valid(functions) {
			return fmt.Errorf("validate random state: call %d: %w", i, host.ErrCorrupt)
		}
	}
	return nil
}

func (p *Place) valid(memory []Range) bool {
	switch p.Kind {
	case KindBytes:
		if p.LenBytes > mostBytes {
			return false
		}
	case KindZero, KindMT19937, KindChaCha8, KindV8Seed:
	case KindV8Math:
		if p.FractionBits != 52 && p.FractionBits != 53 || !contains(memory, p.Also, p.sizeAlso()) {
			return false
		}
	default:
		return false
	}
	return contains(memory, p.Addr, p.size())
}

func (c *Call) valid(functions []Range) bool {
	if len(c.Steps) == 0 || len(c.Steps) > mostSteps {
		return false
	}
	for i := range c.Steps {
		s := &c.Steps[i]
		if len(s.Args) > mostArgs || !contains(functions, s.Func, 1) {
			return false
		}
		if slices.ContainsFunc(s.Args, func(a Arg) bool { return a != ArgResult && a != ArgRandom }) {
			return false
		}
	}
	return true
}

// merge sorts ranges and joins those that touch.
func merge(ranges []Range) []Range {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b Range) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	var merged []Range
	for _, r := range sorted {
		if n := len(merged); n > 0 && r.Start <= merged[n-1].End {
			merged[n-1].End = max(merged[n-1].End, r.End)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// contains reports whether lenBytes, at least one, at addr are in one of the
// merged ranges.
func contains(merged []Range, addr proc.Addr, lenBytes uint64) bool {
	i, _ := slices.BinarySearchFunc(merged, addr, func(r Range, a proc.Addr) int {
		if r.End <= a {
			return -1
		}
		return 1
	})
	return lenBytes > 0 && i < len(merged) && merged[i].Start <= addr && lenBytes <= uint64(merged[i].End-addr)
}

// budget is the time that calls may still take.
type budget struct{ until time.Time }

func newBudget() budget { return budget{time.Now().Add(renewLimit)} }

// limit is how long the next call may take.
func (b budget) limit() time.Duration {
	return min(CallLimit, max(time.Until(b.until), time.Millisecond))
}
