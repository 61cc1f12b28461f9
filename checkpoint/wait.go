package checkpoint

import (
	"fmt"
	"math"
	"time"

	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// A wait with a timeout that the freeze interrupted is made again, and would
// last for all of its time again: a server that has to do something every 30
// seconds, and is put to sleep and woken every 20, would never do it. So what
// has passed is taken off, where the timeout is in a register: epoll_wait,
// epoll_pwait and poll, which event loops wait in. None returns too early: no more
// is taken off than what has passed.
const (
	callPoll       = 7
	callEpollWait  = 232
	callEpollPwait = 281
)

// timeout returns the register with the milliseconds of a call that is about to
// be made; nil for other calls and those that wait for ever.
func timeout(r *ptrace.Regs) *uint64 {
	var ms *uint64
	switch r.Rax {
	case callPoll:
		ms = &r.Rdx
	case callEpollWait, callEpollPwait:
		ms = &r.R10
	default:
		return nil
	}
	if int32(*ms) <= 0 {
		return nil
	}
	return ms
}

// shortened returns registers whose wait is shorter by what has passed, and
// whether it is.
func shortened(r ptrace.Regs, passed time.Duration) (ptrace.Regs, bool) {
	ms := timeout(&r)
	if ms == nil || passed < time.Millisecond {
		return r, false
	}
	*ms = uint64(max(int64(int32(*ms))-min(passed.Milliseconds(), math.MaxInt32), 0))
	return r, true
}

// shorten shortens the waits of a process, whose registers are set.
func (r *restore) shorten(pid int, p *ProcessSpec, passed time.Duration) error {
	var memory *proc.Memory
	for i := range p.Threads {
		thread := &p.Threads[i]
		regs, ok := shortened(thread.Regs, passed)
		if !ok {
			continue
		}
		if memory == nil {
			memory = proc.OpenMemory(pid)
			defer memory.Close()
		}
		var insn [syscallInsnBytes]byte
		if err := memory.ReadAt(insn[:], proc.Addr(regs.Rip)); err != nil {
			return fmt.Errorf("read instruction of thread %d: %w", thread.TID, err)
		}
		if insn != [...]byte{0x0f, 0x05} { // it is at something else
			continue
		}
		if err := ptrace.SetRegs(r.byInner[thread.TID].tid, &regs); err != nil {
			return err
		}
	}
	return nil
}
