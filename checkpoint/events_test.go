package checkpoint

import "testing"

// TestRenumberEvents gives slots other numbers, also the one of a file that is
// watched by a number which is another's now.
func TestRenumberEvents(t *testing.T) {
	s := exampleSpec()
	d := &s.Processes[0].Descriptors[1]
	slot := d.Slot
	d.Signals[0].Slot = &slot
	was := d.Slot
	to := make([]Slot, s.Parked)
	for i := range to {
		to[i] = Slot(len(to) - 1 - i)
	}
	s.renumber(to)
	if d.Slot != to[was] || *d.Signals[0].Slot != to[was] {
		t.Errorf("slot %d is %d, and %d where it is watched; want %d", was, d.Slot, *d.Signals[0].Slot, to[was])
	}
}
