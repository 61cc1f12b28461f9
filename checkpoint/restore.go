package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"torpor/checkpoint/unique"
	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// restoreLimit bounds a script; past it the half-made processes are killed. A
// variable only for the test that waits for it.
var restoreLimit = 20 * time.Second

// RestoreOptions say how a stub becomes its tree.
type RestoreOptions struct {
	// Commit is called when the tree is whole and still stopped. If it returns
	// nil the tree runs and the checkpoint is used up; otherwise it is killed.
	Commit func() error
	// Waited is how long the tree had been waiting for before the checkpoint, at
	// least: waits with a timeout, which begin anew, are shortened by it too.
	Waited time.Duration
	// At is called between the steps, for tests that fail or kill there.
	At func(step string) error
}

// RestoreReport says what a restore did.
type RestoreReport struct {
	PIDs   []int // of the processes, in the order of Spec.Processes, in this process's pid namespace
	Phases map[string]time.Duration
}

// restore is one restore in progress; it runs on its tracer's thread.
type restore struct {
	*Stub
	RestoreOptions
	tasks map[int]*restoredTask // by tid in the tracer's pid namespace
	ready int

	byInner map[int]*restoredTask // by tid in the tree's, when all are there

	ended  bool // the stub has, its work done
	report RestoreReport
	clock  time.Time

	mu    sync.Mutex
	known []int // the keys of tasks, for the watchdog
}

// restoredTask is a new task on its way through the script.
type restoredTask struct {
	tid     int
	started bool
	ready   bool
}

// Restore turns the stub into the tree. On an error the half-made processes
// are gone and the checkpoint can be armed again; the stub is used up in any
// case.
func (s *Stub) Restore(tracer *ptrace.Tracer, o RestoreOptions) (*RestoreReport, error) {
	r := &restore{Stub: s, RestoreOptions: o, tasks: map[int]*restoredTask{}, clock: time.Now()}
	r.report.Phases = map[string]time.Duration{}
	err := tracer.Do(r.run)
	if err := errors.Join(err, s.unmap()); err != nil {
		return nil, err
	}
	return &r.report, nil
}

func (r *restore) phase(name string) error {
	now := time.Now()
	r.report.Phases[name] += now.Sub(r.clock)
	r.clock = now
	if r.At != nil {
		return r.At(name)
	}
	return nil
}

func (r *restore) run() error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"seize", r.seize},
		{"script", r.follow},
		{"tasks", r.identify},
		{"verify", r.verify},
		{"renew", r.renew},
		{"registers", r.finish},
		{"spare", r.spare},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return errors.Join(err, r.destroy())
		}
		if err := r.phase(step.name); err != nil {
			return errors.Join(err, r.destroy())
		}
	}
	if err := r.commit(); err != nil {
		return errors.Join(err, r.destroy())
	}
	// Nothing may fail any more: the checkpoint is used up.
	_ = r.phase("commit")
	err := r.detach()
	_ = r.phase("detach")
	return err
}

// seize stops the stub in its waiting and sends it into the script. Every task
// that it makes is bound too while it is half made.
func (r *restore) seize() error {
	if err := ptrace.Seize(r.PID, boundOptions); err != nil {
		return err
	}
	if err := ptrace.Interrupt(r.PID); err != nil {
		return err
	}
	stop, err := ptrace.Wait(r.PID)
	if err != nil {
		return err
	}
	if stop.Event() != ptrace.EventStop {
		return fmt.Errorf("stop stub: %s", stop)
	}
	regs, err := ptrace.GetRegs(r.PID)
	if err != nil {
		return err
	}
	regs.Rip, regs.R12, regs.Orig_rax = uint64(r.program.interp), uint64(r.program.restore), notInCall
	if err := ptrace.SetRegs(r.PID, regs); err != nil {
		return err
	}
	return ptrace.Continue(r.PID, 0)
}

// follow lets the script run until every thread waits for its registers. A
// script that gets stuck is killed, which ends the wait.
func (r *restore) follow() error {
	begun := time.Now()
	watchdog := time.AfterFunc(restoreLimit, r.killKnown)
	defer watchdog.Stop()
	for r.ready < r.program.tasks {
		stop, err := ptrace.Wait(-1)
		if err == nil {
			err = r.handle(stop)
		}
		if time.Since(begun) > restoreLimit {
			return fmt.Errorf("run script: %d of %d threads ready after %s", r.ready, r.program.tasks, restoreLimit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// killKnown kills the stub and all tasks seen so far.
func (r *restore) killKnown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tid := range append(r.known, r.PID) {
		_ = syscall.Kill(tid, syscall.SIGKILL)
	}
}

func (r *restore) handle(stop ptrace.Stop) error {
	if stop.TID == r.PID {
		if stop.Status.Exited() && stop.Status.ExitStatus() == 0 {
			r.ended = true
			return nil
		}
		return r.failure(stop)
	}
	task := r.tasks[stop.TID]
	if task == nil {
		task = &restoredTask{tid: stop.TID}
		r.tasks[stop.TID] = task
		r.mu.Lock()
		r.known = append(r.known, stop.TID)
		r.mu.Unlock()
	}
	switch {
	case stop.Event() == ptrace.EventStop && !task.started:
		task.started = true
		return ptrace.Continue(stop.TID, 0)
	case stop.Trapped() && !task.ready:
		regs, err := ptrace.GetRegs(stop.TID)
		if err != nil {
			return err
		}
		if regs.R15 == failMark {
			return r.failure(stop)
		}
		task.ready = true
		r.ready++
		return nil
	}
	return r.failure(stop)
}

// failMark is what the interpreter leaves in R15 when a check fails.
const failMark = 0x6c696166

// failure explains which entry of the script went wrong.
func (r *restore) failure(stop ptrace.Stop) error {
	regs, err := ptrace.GetRegs(stop.TID)
	if err != nil {
		return fmt.Errorf("run script: %s", stop)
	}
	at := regs.R12 - uint64(r.program.base)
	if at+entryBytes > uint64(len(r.area)) {
		return fmt.Errorf("run script: %s at %x", stop, regs.Rip)
	}
	e := loadEntry(r.area[at:])
	number := at / entryBytes
	if n := int64(e.result); regs.R15 == failMark && n < 0 && n > -4096 {
		return fmt.Errorf("run script: entry %d, %s: %w", number, &e, syscall.Errno(-n))
	}
	return fmt.Errorf("run script: entry %d, %s: %s", number, &e, stop)
}

// identify finds out which task is which of the spec's.
func (r *restore) identify() error {
	r.byInner = map[int]*restoredTask{}
	for _, task := range r.tasks {
		inner, err := innerID(task.tid)
		if err != nil {
			return err
		}
		r.byInner[inner] = task
	}
	for i := range r.Spec.Processes {
		p := &r.Spec.Processes[i]
		for j := range p.Threads {
			if r.byInner[p.Threads[j].TID] == nil {
				return fmt.Errorf("find thread %d of process %d: not among the new ones", p.Threads[j].TID, p.PID)
			}
		}
		r.report.PIDs = append(r.report.PIDs, r.byInner[p.PID].tid)
	}
	return nil
}

// finish gives every thread its state and takes the area away.
func (r *restore) finish() error {
	for i := range r.Spec.Processes {
		p := &r.Spec.Processes[i]
		if err := r.leaveArea(r.report.PIDs[i], p); err != nil {
			return err
		}
		if p.CoreFilter != nil {
			if err := proc.SetCoredumpFilter(r.report.PIDs[i], *p.CoreFilter); err != nil {
				return err
			}
		}
		for j := range p.Threads {
			if err := r.byInner[p.Threads[j].TID].set(&p.Threads[j], len(r.Spec.Verify) > 0); err != nil {
				return err
			}
		}
		if r.Spec.Ready == nil { // its program begins only now
			if err := r.shorten(r.report.PIDs[i], p, time.Since(r.Spec.Created)+r.Waited); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaveArea takes the area away. A program that ignores SIGTRAP does so again
// first: the breakpoints of the script made the kernel forget it. Nothing is
// single-stepped: the flag would outlive a tracer that is killed.
func (r *restore) leaveArea(tid int, p *ProcessSpec) error {
	insn := uint64(p.Call)
	for _, a := range p.SigActions {
		if a.Signal != sigTrap || a.Handler != sigIgnore {
			continue
		}
		if _, err := ptrace.InjectQuietly(tid, insn, sysRtSigaction, sigTrap, uint64(r.program.ignore), 0, 8); err != nil {
			return err
		}
	}
	_, err := ptrace.InjectQuietly(tid, insn, sysMunmap, uint64(r.program.base), uint64(len(r.area)))
	return err
}

// innerID asks /proc: a task's id in its own namespace is the last of NSpid.
func innerID(tid int) (int, error) {
	status, err := proc.ReadStatus(tid, tid)
	if err != nil {
		return 0, err
	}
	return status.NSPIDs[len(status.NSPIDs)-1], nil
}

// renew gives every process random state of its own, in a restore that is not
// the only one of its checkpoint.
func (r *restore) renew() error {
	if r.Spec.Ready == nil {
		return nil
	}
	for i := range r.Spec.Ready.Random {
		if err := r.renewProcess(&r.Spec.Processes[i], &r.Spec.Ready.Random[i], r.report.PIDs[i]); err != nil {
			return fmt.Errorf("process %d: %w", r.Spec.Processes[i].PID, err)
		}
	}
	return nil
}

func (r *restore) renewProcess(p *ProcessSpec, random *unique.Spec, pid int) error {
	process := &unique.Process{Memory: proc.OpenMemory(pid), Insn: p.Call}
	for j := range p.Threads {
		thread := &p.Threads[j]
		process.Threads = append(process.Threads, unique.Thread{TID: r.byInner[thread.TID].tid, Regs: &thread.Regs})
	}
	return errors.Join(random.Renew(process), process.Memory.Close())
}

// set gives a task its thread's state, and looks at it again if asked.
func (t *restoredTask) set(thread *ThreadSpec, verify bool) error {
	regs := thread.Regs
	if err := ptrace.SetXState(t.tid, thread.XState); err != nil {
		return err
	}
	if err := ptrace.SetRegs(t.tid, &regs); err != nil {
		return err
	}
	if verify {
		if err := t.compare(thread); err != nil {
			return err
		}
	}
	if err := ptrace.SetSigMask(t.tid, thread.SigMask); err != nil {
		return err
	}
	was, err := proc.ReadScheduling(t.tid)
	if err != nil {
		return err
	}
	if err := proc.SetScheduling(t.tid, thread.Scheduling, was); err != nil {
		return err
	}
	priority, err := proc.IOPriority(t.tid)
	if err != nil || priority == thread.IOPriority {
		return err
	}
	return proc.SetIOPriority(t.tid, thread.IOPriority)
}

// verify compares memory with the fingerprints, if the dump took any.
func (r *restore) verify() error {
	if len(r.Spec.Verify) == 0 {
		return nil
	}
	return r.Spec.compare(r.report.PIDs)
}

// compare looks whether the task has the thread's registers.
func (t *restoredTask) compare(thread *ThreadSpec) error {
	regs, err := ptrace.GetRegs(t.tid)
	if err != nil {
		return err
	}
	state, err := ptrace.GetXState(t.tid)
	if err != nil {
		return err
	}
	if *regs != thread.Regs || !slices.Equal(state, thread.XState) {
		return fmt.Errorf("verify thread %d: registers differ: %w", thread.TID, host.ErrCorrupt)
	}
	return nil
}

func (r *restore) commit() error {
	if r.Commit == nil {
		return nil
	}
	return r.Commit()
}

// spare takes the option from every task that would kill it with this process.
// It comes before the commit, so that a whole tree is never lost: whoever finds
// all its processes alive beside a checkpoint discards the checkpoint, and
// otherwise kills what is there and restores again.
func (r *restore) spare() error {
	for tid := range r.tasks {
		if err := ptrace.SetOptions(tid, freeOptions); err != nil {
			return err
		}
	}
	return nil
}

// detach lets the tree run.
func (r *restore) detach() error {
	var errs []error
	gone := map[int]bool{}
	for tid := range r.tasks {
		err := ptrace.Detach(tid)
		if errors.Is(err, syscall.ESRCH) {
			gone[tid] = true
			continue
		}
		errs = append(errs, err)
	}
	r.takeExits(gone)
	return errors.Join(append(errs, r.awaitEnd())...)
}

// goneLimit bounds the wait for tasks that were killed before they could be
// detached: one that is just ending may take a moment, as for a core dump.
const goneLimit = time.Second

// takeExits takes the exits of tasks that were killed before they could be
// detached. Those are owed to the tracer: while its thread lives, and threads
// are kept for the next restore, nobody else can, and a zombie keeps the pid
// namespace and its init from ending.
func (r *restore) takeExits(gone map[int]bool) {
	for begun := time.Now(); len(gone) > 0 && time.Since(begun) < goneLimit; time.Sleep(100 * time.Microsecond) {
		for tid := range gone {
			stop, err := ptrace.Poll(tid)
			switch {
			case errors.Is(err, syscall.ECHILD):
				delete(gone, tid)
			case err != nil || stop.TID == 0: // not yet
			case stop.Gone():
				delete(gone, tid)
			default: // it was on its way out of the stop
				_ = ptrace.Detach(tid)
			}
		}
	}
}

// awaitEnd takes the exit of the stub, which on a busy machine comes after the
// tree is ready. Its parent can not reap it before, no dump accepts the zombie,
// and the tracer's next restore would take it for one of its own tasks.
func (r *restore) awaitEnd() error {
	if r.ended {
		return nil
	}
	stop, err := ptrace.Wait(r.PID)
	if err != nil {
		return err
	}
	return r.handle(stop)
}

// destroy kills what was made and waits until its pids are free.
func (r *restore) destroy() error {
	gone := []int{r.PID}
	for tid := range r.tasks {
		gone = append(gone, tid)
	}
	var errs []error
	for _, tid := range gone {
		if err := syscall.Kill(tid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			errs = append(errs, err)
		}
	}
	for {
		stop, err := ptrace.Wait(-1)
		if errors.Is(err, syscall.ECHILD) {
			break
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if !stop.Gone() {
			// A task that was just being made: it dies when it goes on.
			_ = syscall.Kill(stop.TID, syscall.SIGKILL)
			gone = append(gone, stop.TID)
		}
	}
	for _, tid := range gone {
		if err := awaitFree(tid); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
