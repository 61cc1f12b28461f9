package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// freezeLimit bounds the wait for a task in uninterruptible sleep, vforkLimit
// that for one which waits for its vfork child.
const (
	freezeLimit = time.Second
	vforkLimit  = 20 * time.Millisecond
)

// Options of frozen tasks: a free one runs on when its tracer is killed, a
// bound one dies with it.
const (
	freeOptions  = ptrace.OptSuspendSeccomp
	boundOptions = ptrace.OptSuspendSeccomp | ptrace.OptExitKill
)

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
	area  areaRange // mapped for an inquiry; empty before
	insn  uint64    // a `syscall` instruction in the vdso, when area is set
}

// ignoresTrap reports whether the process ignores SIGTRAP, which breakpoints
// and single steps make the kernel undo.
func (p *frozenProcess) ignoresTrap() bool { return p.tasks[0].status.SigIgnored>>(sigTrap-1)&1 != 0 }

// frozen is a stopped tree. All methods run on its tracer's thread.
type frozen struct {
	processes []frozenProcess
	seized    map[int]bool // tids; true once stopped
}

// freeze stops every thread of the processes that list returns, again and
// again until no new one appears. On an error everything runs again.
func freeze(list func() ([]int, error)) (f *frozen, err error) {
	f = &frozen{seized: map[int]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.release())
		}
	}()
	for {
		pids, err := list()
		if err != nil {
			return f, err
		}
		if len(pids) == 0 {
			return f, fmt.Errorf("freeze: no processes: %w", host.ErrNotFound)
		}
		fresh, err := f.stopNew(pids)
		if err != nil {
			return f, err
		}
		if !fresh {
			return f, f.readRegisters(pids)
		}
	}
}

// stopNew seizes and stops the tasks not yet known and reports whether there
// were any.
func (f *frozen) stopNew(pids []int) (bool, error) {
	var fresh []int
	for _, pid := range pids {
		tids, err := proc.Tasks(pid)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("list threads of %d: %w", pid, err)
		}
		for _, tid := range tids {
			if f.seized[tid] {
				continue
			}
			ok, err := seizeAndInterrupt(pid, tid)
			if ok {
				f.seized[tid] = false
				fresh = append(fresh, tid)
			}
			if err != nil {
				return false, err
			}
		}
	}
	for _, tid := range fresh {
		if err := f.waitStopped(tid); err != nil {
			return false, err
		}
	}
	return len(fresh) > 0, nil
}

// seizeAndInterrupt returns false for a task that is gone.
func seizeAndInterrupt(pid, tid int) (bool, error) {
	err := ptrace.Seize(tid, freeOptions)
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
// first to the task. A task that ends is forgotten.
func (f *frozen) waitStopped(tid int) error {
	for start := time.Now(); ; {
		stop, err := ptrace.Poll(tid)
		if err != nil {
			return err
		}
		switch {
		case stop.TID == 0:
			waited := time.Since(start)
			if waited > vforkLimit && waitsForChild(tid) {
				return &host.Refusal{Reasons: []string{fmt.Sprintf("task %d waits for its vfork child", tid)}}
			}
			if waited > freezeLimit {
				return &host.Refusal{Reasons: []string{fmt.Sprintf("task %d can not be stopped: it waits in the kernel uninterruptibly", tid)}}
			}
			time.Sleep(20 * time.Microsecond)
		case stop.Gone():
			delete(f.seized, tid)
			return nil
		case stop.Event() == ptrace.EventStop:
			f.seized[tid] = true
			if by := stop.Status.StopSignal(); by != syscall.SIGTRAP {
				return &host.Refusal{Reasons: []string{fmt.Sprintf("task %d is stopped by %s", tid, by)}}
			}
			return nil
		default:
			if err := ptrace.Continue(tid, int(stop.Status.StopSignal())); err != nil {
				return err
			}
		}
	}
}

// waitsForChild reports whether a task is in a call that makes a vfork child:
// it sleeps until the child, which may be stopped already, executes or ends.
func waitsForChild(tid int) bool {
	nr, err := proc.CurrentCall(tid)
	return err == nil && (nr == sysVfork || nr == sysClone || nr == sysClone3)
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
				return err
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
// ended meanwhile are no error. It may be called at any time after freeze
// began, also when not all tasks have stopped.
func (f *frozen) release() error {
	var errs []error
	known := map[int]bool{}
	for i := range f.processes {
		p := &f.processes[i]
		errs = append(errs, ignoreGone(p.forgetInquiry()))
		for _, t := range p.tasks {
			known[t.tid] = true
			errs = append(errs, ignoreGone(resumeUnnoticed(t)))
		}
	}
	var moving []int
	for tid, stopped := range f.seized {
		switch {
		case !stopped:
			moving = append(moving, tid)
			continue
		case !known[tid]:
			errs = append(errs, ignoreGone(resumeUntouched(tid)))
		}
		errs = append(errs, ignoreGone(ptrace.Detach(tid)))
	}
	for _, tid := range moving {
		// Only a stopped task can be detached. One that does not stop even now
		// is let go when the tracer's thread ends.
		err := f.waitStopped(tid)
		if f.seized[tid] {
			errs = append(errs, ignoreGone(resumeUntouched(tid)), ignoreGone(ptrace.Detach(tid)))
		} else if !errors.Is(err, host.ErrRefused) {
			errs = append(errs, err)
		}
	}
	f.processes, f.seized = nil, map[int]bool{}
	return errors.Join(errs...)
}

// forgetInquiry takes away what newInquiry mapped.
func (p *frozenProcess) forgetInquiry() error {
	if p.area.lenBytes == 0 {
		return nil
	}
	leader := p.tasks[0].tid
	if err := ptrace.SetOptions(leader, boundOptions); err != nil {
		return err
	}
	if err := ptrace.SetSigMask(leader, ^uint64(0)); err != nil {
		return err
	}
	_, err := ptrace.InjectQuietly(leader, p.insn, sysMunmap, uint64(p.area.base), p.area.lenBytes)
	if err == nil && p.ignoresTrap() {
		err = p.ignoreTrapAgain()
	}
	return err
}

// ignoreTrapAgain sets the action that breakpoints made the kernel forget. The
// argument is put where the signal mask would be: on no memory of the program.
func (p *frozenProcess) ignoreTrapAgain() error {
	leader := p.tasks[0].tid
	insn := p.insn
	page, err := ptrace.InjectQuietly(leader, insn, sysMmap, 0, proc.PageBytes, uint64(proc.ProtRead|proc.ProtWrite), mapPrivate|mapAnonymous, noFD, 0)
	if err != nil {
		return err
	}
	memory := proc.OpenMemory(p.pid)
	defer memory.Close()
	action := binary.LittleEndian.AppendUint64(nil, sigIgnore)
	if err := memory.WriteAt(action, proc.Addr(page)); err != nil {
		return err
	}
	_, err = ptrace.InjectQuietly(leader, insn, sysRtSigaction, sigTrap, page, 0, 8)
	_, undo := ptrace.InjectQuietly(leader, insn, sysMunmap, page, proc.PageBytes)
	return errors.Join(err, undo)
}

// resumeUntouched is resumeUnnoticed for a task of which nothing was read yet.
func resumeUntouched(tid int) error {
	t := frozenTask{tid: tid}
	var err error
	if t.regs, err = ptrace.GetRegs(tid); err != nil {
		return err
	}
	if t.mask, err = ptrace.GetSigMask(tid); err != nil {
		return err
	}
	if t.status, err = proc.ReadStatus(tid, tid); err != nil {
		return err
	}
	return resumeUnnoticed(t)
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
	syscallInsnBytes = 2
	notInCall        = ^uint64(0)
)

// endedByStops are the system calls that end with EINTR when a task is stopped
// and goes on, where others are restarted: epoll_wait, epoll_pwait,
// epoll_pwait2, rt_sigtimedwait, semop, semtimedop, io_getevents,
// io_pgetevents; and those on sockets with a timeout set: read, write, readv,
// writev, connect, accept, accept4, sendto, recvfrom, sendmsg, recvmsg,
// sendmmsg, recvmmsg. See signal(7). None has done anything by then.
var endedByStops = [...]uint64{232, 281, 441, 128, 65, 220, 208, 333, 0, 1, 19, 20, 42, 43, 288, 44, 45, 46, 47, 307, 299}

// interruptedWait reports whether the task was in a call that our interruption
// ended with EINTR.
func interruptedWait(r *ptrace.Regs) bool {
	return int64(r.Rax) == -int64(syscall.EINTR) && slices.Contains(endedByStops[:], r.Orig_rax)
}

// repeatCall makes the task enter its system call once more.
func repeatCall(r *ptrace.Regs) {
	r.Rax, r.Orig_rax = r.Orig_rax, notInCall
	r.Rip -= syscallInsnBytes
}

// resumeElsewhere changes the registers for going on in a new process, which
// has no restart block: every interrupted call is made again. A relative sleep
// starts over, unless it can be shortened then.
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
