package ptrace

import (
	"errors"
	"fmt"
	"syscall"
)

// Inject makes a stopped tracee execute one system call at the `syscall`
// instruction at insn and returns its result. Registers are changed: the
// caller saves and restores them, and blocks signals but SIGTRAP meanwhile.
// The step ends in a SIGTRAP that the kernel forces: a program that blocks or
// ignores it has the default action from then on.
func Inject(tid int, insn uint64, nr uint64, args ...uint64) (uint64, error) {
	return inject(tid, insn, nr, args, Step)
}

// InjectQuietly is Inject without that side effect, at the price of a second
// stop. All signals may be blocked.
func InjectQuietly(tid int, insn uint64, nr uint64, args ...uint64) (uint64, error) {
	return inject(tid, insn, nr, args, func(tid int) error {
		if err := ToCall(tid); err != nil { // its entry
			return err
		}
		if stop, err := Wait(tid); err != nil || !stop.Trapped() {
			return errors.Join(err, fmt.Errorf("inject system call %d: %s", nr, stop))
		}
		return ToCall(tid)
	})
}

func inject(tid int, insn, nr uint64, args []uint64, execute func(int) error) (uint64, error) {
	regs, err := GetRegs(tid)
	if err != nil {
		return 0, err
	}
	var a [6]uint64
	copy(a[:], args)
	regs.Rip, regs.Rax, regs.Orig_rax = insn, nr, ^uint64(0)
	regs.Rdi, regs.Rsi, regs.Rdx = a[0], a[1], a[2]
	regs.R10, regs.R8, regs.R9 = a[3], a[4], a[5]
	if err := SetRegs(tid, regs); err != nil {
		return 0, err
	}
	if err := execute(tid); err != nil {
		return 0, err
	}
	stop, err := Wait(tid)
	if err != nil {
		return 0, err
	}
	if !stop.Trapped() {
		return 0, fmt.Errorf("inject system call %d: %s", nr, stop)
	}
	regs, err = GetRegs(tid)
	if err != nil {
		return 0, err
	}
	if int64(regs.Rax) < 0 && int64(regs.Rax) > -4096 {
		return 0, fmt.Errorf("inject system call %d into task %d: %w", nr, tid, syscall.Errno(-int64(regs.Rax)))
	}
	return regs.Rax, nil
}
