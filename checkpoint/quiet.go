package checkpoint

import (
	"errors"
	"fmt"
	"syscall"

	"torpor/host"
	"torpor/kernel/ptrace"
)

// ErrBusy is matched by the refusal of a tree that is at work just now; it may
// be quiet in a moment.
var ErrBusy = errors.New("busy")

// Busy is a refusal that matches ErrBusy.
func Busy(reason string) error { return &busyRefusal{host.Refusal{Reasons: []string{reason}}} }

// busyRefusal is a refusal that another try may not meet.
type busyRefusal struct{ host.Refusal }

// Is makes errors.Is(err, ErrBusy) true, and host.ErrRefused like any refusal.
func (b *busyRefusal) Is(target error) bool { return target == ErrBusy || b.Refusal.Is(target) }

// As lets errors.As find the plain refusal.
func (b *busyRefusal) As(target any) bool {
	if r, ok := target.(**host.Refusal); ok {
		*r = &b.Refusal
		return true
	}
	return false
}

// checkQuiet looks for threads at work, if asked.
func (d *dump) checkQuiet() error {
	if !d.Quiet {
		return nil
	}
	for _, p := range d.tree.processes {
		for i := range p.tasks {
			if t := &p.tasks[i]; !waiting(t.regs) || t.signalled() {
				return Busy(fmt.Sprintf("process %d (%s) is at work", p.pid, t.status.Name))
			}
		}
	}
	return nil
}

// waiting reports whether the stop interrupted a wait in a system call.
func waiting(r *ptrace.Regs) bool {
	if r.Orig_rax == notInCall {
		return false
	}
	switch int64(r.Rax) {
	case errRestartSys, errRestartNoIntr, errRestartNoHand, errRestartBlock, -int64(syscall.EINTR):
		return true
	}
	return false
}
