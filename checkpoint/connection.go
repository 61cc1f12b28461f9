package checkpoint

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"torpor/host"
	"torpor/kernel/openfile"
	"torpor/kernel/socket"
)

// connectionsLast gives the last slots to connections of TCP that nothing else
// refers to, so that they can be suspended later: the holder can let go of the
// last ones only. Those whose peer has to acknowledge something come first, then
// those that are expected to be used soon.
func (d *dump) connectionsLast() {
	users := map[string]int{}
	for i := range d.spec.Processes {
		for _, fd := range d.spec.Processes[i].Descriptors {
			users[fd.Target]++
		}
	}
	rank := make([]int, len(d.park.fds))
	for i := range d.spec.Processes {
		for _, fd := range d.spec.Processes[i].Descriptors {
			if fd.Connected && users[fd.Target] == 1 {
				rank[fd.Slot] = d.connectionRank(d.park.fds[fd.Slot])
			}
		}
	}
	order := make([]Slot, len(rank))
	for i := range order {
		order[i] = Slot(i)
	}
	slices.SortStableFunc(order, func(a, b Slot) int { return cmp.Compare(rank[a], rank[b]) })
	to := make([]Slot, len(order)) // by the old slot
	fds := make([]int, len(order))
	for i, old := range order {
		to[old], fds[i] = Slot(i), d.park.fds[old]
		if rank[old] > 0 {
			d.spec.Connections++
		}
	}
	d.park.fds, d.park.opens = fds, nil // opens are of ready checkpoints
	d.spec.renumber(to)
}

// connectionRank is 0 for what can not be suspended, 1 for what can when its
// peer has acknowledged all, 2 if it is expected to be used soon, else 3.
func (d *dump) connectionRank(fd int) int {
	kind, err := socket.KindOf(fd)
	if err != nil || kind.Protocol != socket.TCP || socket.Refused(fd, kind) != "" {
		return 0
	}
	if state, _, err := socket.TCPState(fd); err != nil || state != socket.Established {
		return 0
	}
	if unsent, err := socket.Unacknowledged(fd); err != nil || unsent > 0 {
		return 1
	}
	if d.Soon != nil {
		if local, remote, err := socket.Pair(fd); err == nil && d.Soon(local, remote) {
			return 2
		}
	}
	return 3
}

// renumber gives every slot another number.
func (s *Spec) renumber(to []Slot) {
	change := func(slot *Slot) {
		if *slot >= 0 {
			*slot = to[*slot]
		}
	}
	change(&s.Pages)
	if s.Time != nil {
		change(s.Time)
	}
	for i := range s.Processes {
		p := &s.Processes[i]
		change(&p.Exe)
		change(&p.Cwd)
		change(&p.Root)
		for j := range p.VMAs {
			switch p.VMAs[j].Kind {
			case VMAFile, VMAShared, VMABase:
				change(&p.VMAs[j].File)
			}
		}
		for j := range p.Descriptors {
			change(&p.Descriptors[j].Slot)
			for _, e := range p.Descriptors[j].Signals {
				if e.Slot != nil {
					change(e.Slot)
				}
			}
		}
	}
}

// Suspend lets the holder go of the last n parked connections. They must be in
// repair mode, which makes it silent, and be kept by the caller in another way:
// from here on they are parked again, in the order of their slots, before a
// restore. Who watches them is noted; a spec that was armed must be armed again.
//
// A caller that is killed leaves the connections either parked, in repair mode,
// or suspended: Settle finishes it.
func (s *Spec) Suspend(dir string, h *Holder, n int) error {
	if n <= 0 || n > s.Connections || s.Suspended > 0 {
		return fmt.Errorf("suspend %d connections of %d: %w", n, s.Connections, host.ErrInvalid)
	}
	events, err := s.registrations(h, Slot(s.Parked-n))
	if err != nil {
		return err
	}
	suspended := *s
	suspended.Suspended = n
	suspended.Processes = slices.Clone(s.Processes)
	for i := range suspended.Processes {
		p := &suspended.Processes[i]
		p.Descriptors = slices.Clone(p.Descriptors)
		for j := range p.Descriptors {
			p.Descriptors[j].Events = append(p.Descriptors[j].Events, events[registrar{i, p.Descriptors[j].FD}]...)
		}
	}
	if err := suspended.commit(dir); err != nil {
		return err
	}
	*s = suspended
	return h.Truncate(s.Parked - n)
}

// Resume notes that the suspended connections are parked again.
func (s *Spec) Resume(dir string) error {
	resumed := *s
	resumed.Suspended = 0
	if err := resumed.commit(dir); err != nil {
		return err
	}
	*s = resumed
	return nil
}

// Settle finishes what a Suspend or Resume that was killed has begun: the
// holder has no suspended connection.
func (s *Spec) Settle(h *Holder) error {
	if s.Suspended == 0 {
		return nil
	}
	return h.Truncate(s.Parked - s.Suspended)
}

// registrar is a descriptor: the index of its process, and its number there.
type registrar struct{ process, fd int }

// registrations returns what sets of events watch of the connections from a
// slot on, and which process registers it, by what number it has for the set.
func (s *Spec) registrations(h *Holder, from Slot) (map[registrar][]EventSpec, error) {
	all, connections := map[registrar][]EventSpec{}, s.connectionsFrom(from)
	sets, err := s.eventSets(h)
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", h.PID, h.number(set.slot)))
		if err != nil {
			return nil, fmt.Errorf("read set of events: %w", err)
		}
		events, err := parseEvents(string(b))
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			of, known := connections[fmt.Sprintf("socket:[%d]", e.inode)]
			if !known {
				continue
			}
			number, ok := set.numbers[of.process]
			if !ok || of.fd != e.FD {
				return nil, &host.Refusal{Reasons: []string{fmt.Sprintf("process %d watches a connection by a number that it does not have", s.Processes[of.process].PID)}}
			}
			if e.disarmed() { // only an event in an empty set makes it so again
				return nil, &host.Refusal{Reasons: []string{fmt.Sprintf("process %d has had the one event it waits for (EPOLLONESHOT) of a connection", s.Processes[of.process].PID)}}
			}
			at := registrar{of.process, number}
			all[at] = append(all[at], e)
		}
	}
	return all, nil
}

// connectionsFrom returns whose the descriptors from a slot on are, by their
// targets.
func (s *Spec) connectionsFrom(from Slot) map[string]registrar {
	all := map[string]registrar{}
	for i := range s.Processes {
		for _, d := range s.Processes[i].Descriptors {
			if d.Slot >= from {
				all[d.Target] = registrar{i, d.FD}
			}
		}
	}
	return all
}

// eventSet is one set of events, which several processes may have.
type eventSet struct {
	slot    Slot
	numbers map[int]int // by the index of the process
}

func (s *Spec) eventSets(h *Holder) ([]eventSet, error) {
	var sets []eventSet
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
	}()
	for i := range s.Processes {
		for _, d := range s.Processes[i].Descriptors {
			if !strings.HasPrefix(d.Target, "anon_inode:[eventpoll]") {
				continue
			}
			fd, err := h.Take(d.Slot)
			if err != nil {
				return nil, err
			}
			fds = append(fds, fd)
			sets = append(sets, eventSet{d.Slot, map[int]int{i: d.FD}})
		}
	}
	same, err := openfile.Same(fds)
	if err != nil {
		return nil, err
	}
	var apart []eventSet
	for i, first := range same {
		if first == i {
			apart = append(apart, sets[i])
			continue
		}
		for process, fd := range sets[i].numbers {
			if _, ok := sets[first].numbers[process]; !ok {
				sets[first].numbers[process] = fd
			}
		}
	}
	return apart, nil
}
