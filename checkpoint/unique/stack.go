package unique

import (
	"errors"

	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// System calls of amd64 and their flags.
const (
	sysMmap      = 9
	sysMunmap    = 11
	mapPrivate   = 2
	mapAnonymous = 32
	noDescriptor = ^uint64(0)
)

// mapStack makes memory in the process and returns its upper end.
func (p *Process) mapStack() (top uint64, err error) {
	err = p.asItWas(func(tid int) error {
		var bottom uint64
		bottom, err := ptrace.InjectQuietly(tid, uint64(p.Insn), sysMmap, 0, stackBytes,
			uint64(proc.ProtRead|proc.ProtWrite), mapPrivate|mapAnonymous, noDescriptor, 0)
		top = bottom + stackBytes
		return err
	})
	return top, err
}

func (p *Process) unmapStack(top uint64) error {
	return p.asItWas(func(tid int) error {
		_, err := ptrace.InjectQuietly(tid, uint64(p.Insn), sysMunmap, top-stackBytes, stackBytes)
		return err
	})
}

// asItWas lets f change registers of the leader, with all signals blocked.
func (p *Process) asItWas(f func(tid int) error) error {
	tid := p.Threads[0].TID
	regs, err := ptrace.GetRegs(tid)
	if err != nil {
		return err
	}
	mask, err := ptrace.GetSigMask(tid)
	if err != nil {
		return err
	}
	if err := ptrace.SetSigMask(tid, ^uint64(0)); err != nil {
		return err
	}
	return errors.Join(f(tid), ptrace.SetRegs(tid, regs), ptrace.SetSigMask(tid, mask))
}
