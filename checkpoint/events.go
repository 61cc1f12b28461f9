package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"torpor/checkpoint/object"
	"torpor/host"
	"torpor/kernel/openfile"
	"torpor/kernel/socket"
)

// What descriptors of processes and epoll sets lead to.
const (
	setTarget     = "anon_inode:[eventpoll]"
	signalsTarget = "anon_inode:[signalfd]"
)

// Events of epoll that matter here, linux/eventpoll.h.
const (
	epollAnything   = 0x1 | 0x2 | 0x4 | 0x2000 // IN, PRI, OUT, RDHUP
	epollAlways     = 0x8 | 0x10               // ERR, HUP: the kernel adds them to every registration
	epollEventBytes = 12
)

// disarmed reports whether a registration for one event (EPOLLONESHOT) has had
// it: then the kernel has taken all that it waits for.
func (e *EventSpec) disarmed() bool { return e.Events&epollAlways == 0 }

// parseEvents parses the lines of an epoll descriptor's fdinfo, such as
// "tfd:        5 events:       19 data:                5  pos:0 ino:42 sdev:10".
func parseEvents(info string) ([]EventSpec, error) {
	var events []EventSpec
	times := map[int]int{}
	for line := range strings.Lines(info) {
		if !strings.HasPrefix(line, "tfd:") {
			continue
		}
		var e EventSpec
		var position int64
		if _, err := fmt.Sscanf(line, "tfd: %d events: %x data: %x pos:%d ino:%x", &e.FD, &e.Events, &e.Data, &position, &e.inode); err != nil {
			return nil, fmt.Errorf("parse events: %q: %w", line, err)
		}
		e.nth = times[e.FD]
		times[e.FD]++
		events = append(events, e)
	}
	return events, nil
}

// signalEvents notes, of each set of a process, the signal descriptors that it
// watches: such a registration is with the signals of the process that made it.
func (d *dump) signalEvents(descriptors []DescriptorSpec) error {
	signals := slices.DeleteFunc(slices.Clone(descriptors), func(fd DescriptorSpec) bool { return fd.Target != signalsTarget })
	if len(signals) == 0 {
		return nil
	}
	for i := range descriptors {
		set := &descriptors[i]
		if set.Target != setTarget {
			continue
		}
		events, err := parseEvents(set.info.Info)
		if err != nil {
			return err
		}
		for _, e := range events {
			found, err := d.resolve(set, &e, signals)
			if err != nil {
				return err
			}
			if found {
				set.Signals = append(set.Signals, e)
			}
		}
	}
	return nil
}

// oneOwner leaves each registration of a signal descriptor to one process. The
// kernel does not tell which one made it, and so whose signals it is about: the
// first that has the file under its number, or else the first that has it, is
// right unless a child registered in its parent's set what both have.
func (d *dump) oneOwner() error {
	var sets []*DescriptorSpec
	var fds []int
	for i := range d.spec.Processes {
		descriptors := d.spec.Processes[i].Descriptors
		for j := range descriptors {
			if set := &descriptors[j]; len(set.Signals) > 0 {
				sets, fds = append(sets, set), append(fds, d.park.fds[set.Slot])
			}
		}
	}
	if len(sets) < 2 {
		return nil
	}
	same, err := openfile.Same(fds)
	if errors.Is(err, syscall.ENOSYS) {
		return nil
	}
	if err != nil {
		return err
	}
	type registration struct{ set, number, nth int }
	owners := map[registration]*DescriptorSpec{}
	for _, atHome := range []bool{true, false} {
		for i, set := range sets {
			for _, e := range set.Signals {
				r := registration{same[i], e.FD, e.nth}
				if owners[r] == nil && (e.Slot == nil || !atHome) {
					owners[r] = set
				}
			}
		}
	}
	for i, set := range sets {
		set.Signals = slices.DeleteFunc(set.Signals, func(e EventSpec) bool { return owners[registration{same[i], e.FD, e.nth}] != set })
	}
	return nil
}

// resolve finds the file of a registration among descriptors, the one with its
// number first, and notes the Slot of another. It reports whether it is there.
func (d *dump) resolve(set *DescriptorSpec, e *EventSpec, descriptors []DescriptorSpec) (bool, error) {
	at := slices.IndexFunc(descriptors, func(fd DescriptorSpec) bool { return fd.FD == e.FD })
	if at >= 0 {
		same, err := d.registered(set, e, descriptors[at].Slot)
		if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EOPNOTSUPP) {
			return true, nil // the kernel does not tell
		}
		if same || err != nil {
			return same, err
		}
	}
	for i := range descriptors {
		if i == at {
			continue
		}
		same, err := d.registered(set, e, descriptors[i].Slot)
		if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EOPNOTSUPP) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if same {
			slot := descriptors[i].Slot // of its own: slots may be given other numbers
			e.Slot = &slot
			return true, nil
		}
	}
	return false, nil
}

// registered reports whether a registration is of the file in a slot. The
// number of the inode, which is cheap, tells most that are not.
func (d *dump) registered(set *DescriptorSpec, e *EventSpec, slot Slot) (bool, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(d.park.fds[slot], &st); err != nil {
		return false, fmt.Errorf("look at descriptor %d: %w", e.FD, err)
	}
	if st.Ino != e.inode {
		return false, nil
	}
	return openfile.Registered(d.park.fds[set.Slot], e.FD, e.nth, d.park.fds[slot])
}

// registrations says for each set of events which process registers what: one
// that has every file under the number that it was registered with, if there
// is any, else the first that has the set.
func (d *dump) registrations() error {
	var all []DescriptorSpec
	for i := range d.spec.Processes {
		all = append(all, d.spec.Processes[i].Descriptors...)
	}
	chosen := map[int]*DescriptorSpec{} // by the set's first object
	reasons := map[int]string{}
	for i, p := range d.tree.processes {
		descriptors := d.spec.Processes[i].Descriptors
		for j := range descriptors {
			set := &descriptors[j]
			if set.Target != setTarget {
				continue
			}
			set.Signals = nil // among the events
			first := d.firstObject(set.Slot)
			if best := chosen[first]; best != nil && !moved(best.Events) {
				continue
			}
			events, reason, err := d.eventsOf(set, descriptors, all)
			if err != nil {
				return err
			}
			switch best := chosen[first]; {
			case reason != "":
				reasons[first] = fmt.Sprintf("process %d (%s) %s", p.pid, p.tasks[0].status.Name, reason)
			case best == nil:
				set.Events, chosen[first] = events, set
			case !moved(events):
				best.Events, set.Events, chosen[first] = nil, events, set
			}
		}
	}
	if len(reasons) > 0 {
		return &host.Refusal{Reasons: slices.Sorted(maps.Values(reasons))}
	}
	return nil
}

// moved reports whether a registered file is not under its number any more.
func moved(events []EventSpec) bool {
	return slices.ContainsFunc(events, func(e EventSpec) bool { return e.Slot != nil })
}

// eventsOf lists what is registered in a set that a process has, or says why
// that can not be done again. Disarmed registrations come first, while nothing
// else can happen in the set.
func (d *dump) eventsOf(set *DescriptorSpec, descriptors, all []DescriptorSpec) (events []EventSpec, reason string, err error) {
	if events, err = parseEvents(set.info.Info); err != nil {
		return nil, "", err
	}
	for i := range events {
		e := &events[i]
		found, err := d.resolve(set, e, descriptors)
		if err == nil && !found {
			found, err = d.resolve(set, e, elsewhere(all))
		}
		if err != nil {
			return nil, "", err
		}
		if !found {
			return nil, fmt.Sprintf("waits for events of descriptor %d, whose file no process has as a descriptor any more", e.FD), nil
		}
		if ready, err := d.canDisarm(e, descriptors); err != nil {
			return nil, "", err
		} else if !ready {
			return nil, fmt.Sprintf("has had the one event it waits for (EPOLLONESHOT) of descriptor %d, which has none now", e.FD), nil
		}
	}
	slices.SortStableFunc(events, func(a, b EventSpec) int {
		switch {
		case a.disarmed() == b.disarmed():
			return 0
		case a.disarmed():
			return -1
		}
		return 1
	})
	return events, "", nil
}

// elsewhere are descriptors without their numbers: under the same one, another
// process's file would be taken for the own.
func elsewhere(all []DescriptorSpec) []DescriptorSpec {
	var others []DescriptorSpec
	for _, fd := range all {
		fd.FD = -1
		others = append(others, fd)
	}
	return others
}

// canDisarm reports whether a registration is armed, or the restored file has
// some event that can be the one it was for. A listening socket has none: the
// connections that wait are not restored.
func (d *dump) canDisarm(e *EventSpec, descriptors []DescriptorSpec) (bool, error) {
	if !e.disarmed() {
		return true, nil
	}
	slot := e.Slot
	if slot == nil {
		at := slices.IndexFunc(descriptors, func(fd DescriptorSpec) bool { return fd.FD == e.FD })
		slot = &descriptors[at].Slot
	}
	if s := d.spec.Ready.Objects[d.firstObject(*slot)].Socket; s != nil && s.State == object.SocketListening {
		return false, nil
	}
	events, err := socket.Poll(d.park.fds[*slot], epollAnything, 0)
	return events != 0, err
}

// events registers what a set waits for, when all files are there.
func (c *processCompiler) events(d *DescriptorSpec) {
	for _, e := range d.Signals {
		c.under(&e, func() { c.watchSignals(d.FD, &e) })
	}
	for _, e := range d.Events {
		c.under(&e, func() { c.register(d.FD, &e) })
	}
}

// register adds a registration. One that is disarmed is made by an event that is
// there at once, and takes it: nothing else is in a set of a ready checkpoint.
func (c *processCompiler) register(set int, e *EventSpec) {
	if !e.disarmed() {
		c.call(sysEpollCtl, uint64(set), epollAdd, uint64(e.FD), uint64(c.s.data(e.bytes())))
		return
	}
	armed := *e
	armed.Events |= epollAnything
	c.call(sysEpollCtl, uint64(set), epollAdd, uint64(e.FD), uint64(c.s.data(armed.bytes())))
	c.expect(1, sysEpollWait, uint64(set), uint64(c.s.data(make([]byte, epollEventBytes))), 1, 0)
}

// watchSignals registers a signal descriptor again: its registration was with
// the signals of the process that is gone.
func (c *processCompiler) watchSignals(set int, e *EventSpec) {
	c.try(sysEpollCtl, uint64(set), epollRemove, uint64(e.FD), 0)
	c.try(sysEpollCtl, uint64(set), epollAdd, uint64(e.FD), uint64(c.s.data(e.bytes())))
}

// under does something while a registration's number is its file: the kernel
// knows registrations by both. What has the number comes back to it.
func (c *processCompiler) under(e *EventSpec, do func()) {
	if e.Slot == nil {
		do()
		return
	}
	aside := c.holder + 1
	used := c.fds[e.FD]
	if used {
		c.expect(uint64(aside), sysFcntl, uint64(e.FD), fDupFDCloexec, uint64(aside))
	}
	fd := c.take(*e.Slot)
	if fd != e.FD {
		c.expect(uint64(e.FD), sysDup3, uint64(fd), uint64(e.FD), oCloexec)
		c.drop(fd)
	}
	do()
	switch {
	case used:
		c.expect(uint64(e.FD), sysDup3, uint64(aside), uint64(e.FD), c.flags(e.FD))
		c.call(sysClose, uint64(aside))
	case fd == e.FD:
		c.drop(fd)
	default:
		c.call(sysClose, uint64(e.FD))
	}
}

// flags are those of dup3 for a descriptor of the process.
func (c *processCompiler) flags(fd int) uint64 {
	if slices.ContainsFunc(c.p.Descriptors, func(d DescriptorSpec) bool { return d.FD == fd && d.CloseOnExec }) {
		return oCloexec
	}
	return 0
}

// bytes is struct epoll_event, packed.
func (e *EventSpec) bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, e.Events)
	return binary.LittleEndian.AppendUint64(b, e.Data)
}
