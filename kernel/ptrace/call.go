package ptrace

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnfinished is matched by the error of a call that did not return in time.
var ErrUnfinished = errors.New("it does not return")

// FunctionCall is a call of a function of the tracee's own program by the
// System V convention.
type FunctionCall struct {
	Func uint64
	Args []uint64 // at most 6
	// Stack is the top of memory that the call may use, a multiple of 16.
	// What lies below a waiting thread's own stack pointer and red zone is, if
	// the thread has a stack of full size.
	Stack uint64
	// Insn is where a `syscall` instruction is, as for Inject. It is the
	// return address: no breakpoint is needed, hence no signal, whose action a
	// breakpoint would make the kernel forget.
	Insn uint64
	// FSBase and GSBase are the thread's own, through which it finds its local
	// storage. They are given because a task that is just being restored does
	// not have them yet.
	FSBase, GSBase uint64
	Limit          time.Duration
}

// Call makes a stopped tracee call a function and returns what that returned.
// All signals are blocked meanwhile; registers, extended state and signal mask
// are put back, so that the tracee goes on as if nothing had happened but what
// the function did, which may include the thread's errno. Other threads stay as
// they are: a function that waits for one of them does not return.
//
// After an error the tracee is in the middle of the call, stopped unless it is
// gone: it can only be killed. ErrUnfinished: not back after the limit.
func Call(tid int, c FunctionCall) (uint64, error) {
	saved, err := saveTask(tid)
	if err != nil {
		return 0, err
	}
	result, err := c.run(tid, *saved.regs)
	if err != nil {
		return 0, fmt.Errorf("call function at %x in task %d: %w", c.Func, tid, err)
	}
	return result, saved.restore(tid)
}

// savedTask is what a call must not change.
type savedTask struct {
	regs  *Regs
	state []byte
	mask  uint64
}

func saveTask(tid int) (s savedTask, err error) {
	if s.regs, err = GetRegs(tid); err != nil {
		return s, err
	}
	if s.state, err = GetXState(tid); err != nil {
		return s, err
	}
	s.mask, err = GetSigMask(tid)
	return s, err
}

func (s savedTask) restore(tid int) error {
	return errors.Join(SetXState(tid, s.state), SetRegs(tid, s.regs), SetSigMask(tid, s.mask))
}

// run enters the function and follows it until it is back.
func (c *FunctionCall) run(tid int, regs Regs) (uint64, error) {
	if err := SetSigMask(tid, ^uint64(0)); err != nil {
		return 0, err
	}
	stack := c.Stack - 8
	if err := pokeWord(tid, stack, c.Insn); err != nil {
		return 0, err
	}
	const clear = 0x202 // flags: interrupts on, direction up
	c.enter(&regs, stack)
	regs.Eflags = clear
	if err := SetRegs(tid, &regs); err != nil {
		return 0, err
	}
	late := guard(tid, c.Limit, func() { stopTask(tid) })
	result, err := c.follow(tid)
	if late() {
		// Even if the call came back just then: a SIGSTOP is on its way.
		return 0, fmt.Errorf("after %s: %w", c.Limit, ErrUnfinished)
	}
	return result, err
}

func (c *FunctionCall) enter(regs *Regs, stack uint64) {
	var a [6]uint64
	copy(a[:], c.Args)
	regs.Rdi, regs.Rsi, regs.Rdx, regs.Rcx, regs.R8, regs.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
	regs.Rip, regs.Rsp, regs.Rbp, regs.Rax, regs.Orig_rax = c.Func, stack, 0, 0, ^uint64(0)
	regs.Fs_base, regs.Gs_base = c.FSBase, c.GSBase
}

// follow lets the function make its own system calls, each of which stops at
// its entry and exit, until it comes to the one that its return is: there the
// stack is empty. That call is skipped.
func (c *FunctionCall) follow(tid int) (uint64, error) {
	for entry := true; ; entry = !entry {
		if err := toStop(tid); err != nil {
			return 0, err
		}
		if !entry {
			continue
		}
		regs, err := GetRegs(tid)
		if err != nil {
			return 0, err
		}
		const insnBytes = 2
		if regs.Rip != c.Insn+insnBytes || regs.Rsp != c.Stack {
			continue
		}
		result := regs.Orig_rax
		regs.Orig_rax = ^uint64(0)
		if err := SetRegs(tid, regs); err != nil {
			return 0, err
		}
		return result, toStop(tid)
	}
}

// toStop runs to the next entry or exit of a system call.
func toStop(tid int) error {
	if err := ToCall(tid); err != nil {
		return err
	}
	stop, err := Wait(tid)
	if err == nil && !stop.Trapped() {
		err = errors.New(stop.String())
	}
	return err
}

// stopTask makes a running task stop with a SIGSTOP, which its tracer sees and
// the task does not.
func stopTask(tid int) {
	_, _, _ = unix.RawSyscall(unix.SYS_TKILL, uintptr(tid), uintptr(syscall.SIGSTOP), 0) // it may have ended
}

// pokeWord writes one word of a stopped tracee's memory.
func pokeWord(tid int, addr, word uint64) error {
	_, err := request("write memory of", unix.PTRACE_POKEDATA, tid, uintptr(addr), uintptr(word))
	return err
}
