package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// freezeLimit bounds the wait for a task that can not be stopped: one in
// uninterruptible sleep, or one that waits for its vfork child.
const freezeLimit = 2 * time.Second

// frozenTask is a stopped thread.
type frozenTask struct {
	tid    int // in the tracer's pid namespace
	regs   *ptrace.Regs
	mask   uint64
	status *proc.Status
}

// signalled reports whether a signal waits that the task does not block.
func (t *frozenTask) signalled() bool {
	return (t.status.SigPending|t.status.SharedPending)&^t.mask != 0
}

// frozenProcess is a process all of whose threads are stopped.
type frozenProcess struct {
	pid   int // in the tracer's pid namespace
	tasks []frozenTask
}

// frozen is a stopped tree. All methods run on its tracer's thread.
type frozen struct {
	processes []frozenProcess
	stopped   map[int]bool // tids
}

// freeze stops every thread of the processes that list returns, again and
// again until no new one appears. On an error everything runs again.
func freeze(list func() ([]int, error)) (*frozen, error) {
	f := &frozen{stopped: map[int]bool{}}
	for {
		pids, err := list()
		if err != nil {
			return nil, errors.Join(err, f.release())
		}
		fresh, err := f.stopNew(pids)
		if err != nil {
			return nil, errors.Join(err, f.release())
		}
		if !fresh {
			return f, f.readRegisters(pids)
		}
	}
}

// stopNew seizes and stops the tasks not yet known and reports whether there
// were any.
func (f *frozen) stopNew(pids []int) (bool, error) {
	var seized []int
	for _, pid := range pids {
		tids, err := proc.Tasks(pid)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("list threads of %d: %w", pid, err)
		}
		for _, tid := range tids {
			if f.stopped[tid] {
				continue
			}
			ok, err := seizeAndInterrupt(pid, tid)
			if err != nil {
				return false, err
			}
			if ok {
				seized = append(seized, tid)
			}
		}
	}
	for _, tid := range seized {
		alive, err := waitStopped(tid)
		if err != nil {
			return false, err
		}
		if alive {
			f.stopped[tid] = true
		}
	}
	return len(seized) > 0, nil
}

// seizeAndInterrupt returns false for a task that is gone.
func seizeAndInterrupt(pid, tid int) (bool, error) {
	err := ptrace.Seize(tid, ptrace.OptSuspendSeccomp)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return false, nil
	case errors.Is(err, syscall.EPERM):
		return false, explainEPERM(pid, tid)
	case err != nil:
		return false, err
	}
	err = ptrace.Interrupt(tid)
	if errors.Is(err, syscall.ESRCH) {
		return false, nil
	}
	return true, err
}

// explainEPERM says why a task could not be seized.
func explainEPERM(pid, tid int) error {
	status, err := proc.ReadStatus(pid, tid)
	if err != nil {
		return err
	}
	if status.State == 'Z' {
		return &host.Refusal{Reasons: []string{fmt.Sprintf("process %d (%s) is a zombie its parent has not reaped", pid, status.Name)}}
	}
	return &host.Refusal{Reasons: []string{fmt.Sprintf("process %d (%s) is being traced", pid, status.Name)}}
}

// waitStopped waits for the stop of Interrupt, handing signals that arrive
// first to the task. It returns false if the task ended.
func waitStopped(tid int) (bool, error) {
	for deadline := time.Now().Add(freezeLimit); ; {
		stop, err := ptrace.Poll(tid)
		if err != nil {
			return false, err
		}
		switch {
		case stop.TID == 0:
			if time.Now().After(deadline) {
				return false, &host.Refusal{Reasons: []string{fmt.Sprintf(
					"task %d can not be stopped: it waits in the kernel uninterruptibly or for a vfork child", tid)}}
			}
			time.Sleep(20 * time.Microsecond)
		case stop.Gone():
			return false, nil
		case stop.Event() == ptrace.EventStop && stop.Status.StopSignal() != syscall.SIGTRAP:
			return false, &host.Refusal{Reasons: []string{fmt.Sprintf("task %d is stopped by %s", tid, stop.Status.StopSignal())}}
		case stop.Event() == ptrace.EventStop:
			return true, nil
		default:
			if err := ptrace.Continue(tid, int(stop.Status.StopSignal())); err != nil {
				return false, err
			}
		}
	}
}

// readRegisters fills in the processes, leaders first, and the registers with
// which each task has to go on.
func (f *frozen) readRegisters(pids []int) error {
	for _, pid := range pids {
		p := frozenProcess{pid: pid}
		tids, err := proc.Tasks(pid)
		if err != nil {
			continue // ended before it was seized
		}
		slices.SortFunc(tids, func(a, b int) int {
			if a == pid {
				return -1
			}
			if b == pid {
				return 1
			}
			return a - b
		})
		for _, tid := range tids {
			task, err := readTask(pid, tid)
			if err != nil {
				return errors.Join(err, f.release())
			}
			p.tasks = append(p.tasks, task)
		}
		f.processes = append(f.processes, p)
	}
	return nil
}

func readTask(pid, tid int) (frozenTask, error) {
	regs, err := ptrace.GetRegs(tid)
	if err != nil {
		return frozenTask{}, err
	}
	mask, err := ptrace.GetSigMask(tid)
	if err != nil {
		return frozenTask{}, err
	}
	status, err := proc.ReadStatus(pid, tid)
	return frozenTask{tid: tid, regs: regs, mask: mask, status: status}, err
}

// release puts every task back as it was found and lets it run. Tasks that
// ended meanwhile are no error.
func (f *frozen) release() error {
	var errs []error
	for _, p := range f.processes {
		for _, t := range p.tasks {
			errs = append(errs, ignoreGone(resumeUnnoticed(t)))
		}
	}
	for tid := range f.stopped {
		errs = append(errs, ignoreGone(ptrace.Detach(tid)))
	}
	return errors.Join(errs...)
}

// resumeUnnoticed sets the registers for going on in the same process. Calls
// that the interruption made return EINTR are made again: the others the
// kernel restarts by itself.
func resumeUnnoticed(t frozenTask) error {
	regs := *t.regs
	if interruptedWait(&regs) && !t.signalled() {
		repeatCall(&regs)
	}
	if err := ptrace.SetRegs(t.tid, &regs); err != nil {
		return err
	}
	return ptrace.SetSigMask(t.tid, t.mask)
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// Codes with which the kernel marks an interrupted system call,
// linux/errno.h; they are seen by tracers only.
const (
	errRestartSys    = -512
	errRestartNoIntr = -513
	errRestartNoHand = -514
	errRestartBlock  = -516
	sysEpollWait     = 232
	sysEpollPwait    = 281
	sysEpollPwait2   = 441
	syscallInsnBytes = 2
	notInCall        = ^uint64(0)
)

// interruptedWait reports whether the task was in an epoll_wait that our
// interruption ended: it returns EINTR where others are restarted.
func interruptedWait(r *ptrace.Regs) bool {
	if int64(r.Rax) != -int64(syscall.EINTR) {
		return false
	}
	return r.Orig_rax == sysEpollWait || r.Orig_rax == sysEpollPwait || r.Orig_rax == sysEpollPwait2
}

// repeatCall makes the task enter its system call once more.
func repeatCall(r *ptrace.Regs) {
	r.Rax, r.Orig_rax = r.Orig_rax, notInCall
	r.Rip -= syscallInsnBytes
}

// resumeElsewhere changes the registers for going on in a new process, which
// has no restart block: every interrupted call is made again. A relative sleep
// starts over.
func resumeElsewhere(r *ptrace.Regs, signalled bool) {
	if r.Orig_rax == notInCall {
		return
	}
	switch int64(r.Rax) {
	case errRestartSys, errRestartNoIntr, errRestartNoHand, errRestartBlock:
		repeatCall(r)
	default:
		if interruptedWait(r) && !signalled {
			repeatCall(r)
		} else {
			r.Orig_rax = notInCall
		}
	}
}
