package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"torpor/checkpoint/object"
	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// collector reads everything of one frozen process but its pages.
type collector struct {
	process *frozenProcess
	park    *parking
	vmas    []proc.VMA
	memory  *proc.Memory
}

// collect returns the spec of a frozen process, its VMAs not yet classified.
func collect(p *frozenProcess, park *parking) (spec *ProcessSpec, vmas []proc.VMA, err error) {
	c := &collector{process: p, park: park, memory: proc.OpenMemory(p.pid)}
	defer c.memory.Close()
	if c.vmas, err = proc.VMAs(p.pid); err != nil {
		return nil, nil, err
	}
	spec = &ProcessSpec{PID: p.tasks[0].innerTID(), Threads: make([]ThreadSpec, len(p.tasks))}
	if err := c.outside(spec); err != nil {
		return nil, nil, err
	}
	if err := c.inside(spec); err != nil {
		return nil, nil, err
	}
	return spec, c.vmas, c.files(spec)
}

// inside asks what only the process itself can ask for.
func (c *collector) inside(spec *ProcessSpec) (err error) {
	insn, err := findSyscall(c.memory, c.vmas)
	if err != nil {
		return err
	}
	spec.Call = proc.Addr(insn)
	if spec.Timers, err = readTimers(c.process.pid); err != nil {
		return err
	}
	if err := c.block(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.unblock()) }()
	q, err := newInquiry(c.process, c.memory, insn, len(spec.Timers))
	if err != nil {
		return err
	}
	if spec.LockFuture, err = q.lockFuture(); err != nil {
		return err
	}
	take := c.askProcess(q, spec)
	for i := range c.process.tasks {
		take = append(take, askThread(q, i, &spec.Threads[i]))
	}
	if err := q.run(); err != nil {
		return err
	}
	for _, f := range take {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// block keeps signals away. SIGTRAP stays: a breakpoint whose signal is
// blocked makes the kernel forget the program's handler. Until unblock the
// task's registers and mask are not its own: should this process be killed
// meanwhile, the task dies with it, where it would hang if it ran on.
func (c *collector) block() error {
	for _, t := range c.process.tasks {
		if (t.status.SigPending|t.status.SharedPending)&(1<<(sigTrap-1)) != 0 {
			return &host.Refusal{Reasons: []string{fmt.Sprintf("process %d (%s) has a SIGTRAP pending", c.process.pid, t.status.Name)}}
		}
		if err := ptrace.SetOptions(t.tid, boundOptions); err != nil {
			return err
		}
		if err := ptrace.SetSigMask(t.tid, ^uint64(1<<(sigTrap-1))); err != nil {
			return err
		}
	}
	return nil
}

// unblock undoes block and gives the registers back.
func (c *collector) unblock() error {
	var errs []error
	for _, t := range c.process.tasks {
		errs = append(errs, ignoreGone(ptrace.SetRegs(t.tid, t.regs)), ignoreGone(ptrace.SetSigMask(t.tid, t.mask)),
			ignoreGone(ptrace.SetOptions(t.tid, freeOptions)))
	}
	return errors.Join(errs...)
}

// findSyscall finds a `syscall` instruction that is there anyway: writing one
// into the program would cost a page and could be left behind.
func findSyscall(m *proc.Memory, vmas []proc.VMA) (uint64, error) {
	for i := range vmas {
		v := &vmas[i]
		if v.Name != "[vdso]" {
			continue
		}
		code := make([]byte, v.Len())
		if err := m.ReadAt(code, v.Start); err != nil {
			return 0, err
		}
		if at := bytes.Index(code, []byte{0x0f, 0x05}); at >= 0 {
			return uint64(v.Start) + uint64(at), nil
		}
	}
	return 0, &host.Refusal{Reasons: []string{"a process has no vdso with a system call instruction"}}
}

// askProcess adds the questions that concern all threads and returns what
// takes the answers.
func (c *collector) askProcess(q *inquiry, spec *ProcessSpec) []func() error {
	brk := q.ask(0, 0, 0, sysBrk, 0)
	dumpable := q.ask(0, 0, 0, sysPrctl, prGetDumpable)
	subreaper := q.ask(0, 8, 1, sysPrctl, prGetChildSubreaper, 0)
	huge := q.ask(0, 0, 0, sysPrctl, prGetTHPDisable, 0, 0, 0, 0)
	persona := q.ask(0, 0, 0, sysPersonality, 0xffffffff)
	merge := q.ask(0, 0, 0, sysPrctl, prGetMemoryMerge, 0, 0, 0, 0)
	barriers := q.ask(0, 0, 0, sysMembarrier, membarrierRegistrations, 0)
	take := []func() error{func() error {
		var values [4]uint64
		for i, a := range []answer{brk, dumpable, huge, persona} {
			var err error
			if values[i], err = a.value(); err != nil {
				return err
			}
		}
		spec.Brk, spec.Dumpable = proc.Addr(values[0]), values[1] == 1
		spec.NoHugePages, spec.Personality = values[2] != 0, uint32(values[3])
		merges, err := merge.value() // least kernel: 6.4, and it may lack KSM
		spec.MergeMemory = err == nil && merges != 0
		spec.Barriers, _ = barriers.value() // least kernel: 6.3
		w, err := subreaper.words()
		if err == nil {
			spec.ChildSubreaper = uint32(w[0]) != 0
		}
		return err
	}}
	take = append(take, c.askSigActions(q, spec)...)
	take = append(take, c.askSegments(q)...)
	return append(take, askTimers(q, spec)...)
}

// askSigActions asks only for the signals that status lists as caught or
// ignored.
func (c *collector) askSigActions(q *inquiry, spec *ProcessSpec) []func() error {
	status := c.process.tasks[0].status
	var take []func() error
	for n := 1; n <= 64; n++ {
		switch {
		case (status.SigCaught|status.SigIgnored)>>(n-1)&1 == 0:
			continue
		case n == sigTrap && c.process.ignoresTrap():
			// The breakpoint that ends the inquiry changes it.
			spec.SigActions = append(spec.SigActions, SigAction{Signal: n, Handler: sigIgnore})
			continue
		}
		a := q.ask(0, 32, 2, sysRtSigaction, uint64(n), 0, 0, 8)
		take = append(take, func() error {
			w, err := a.words()
			if err == nil {
				spec.SigActions = append(spec.SigActions, SigAction{Signal: n, Handler: w[0], Flags: w[1], Restorer: w[2], Mask: w[3]})
			}
			return err
		})
	}
	return take
}

// askSegments refuses System V segments that nobody could attach again.
func (c *collector) askSegments(q *inquiry) []func() error {
	var take []func() error
	for i := range c.vmas {
		v := &c.vmas[i]
		if !v.Shared || !strings.HasPrefix(v.Name, "/SYSV") {
			continue
		}
		a := q.ask(0, 112, 2, sysShmctl, v.Inode, ipcStat, 0)
		take = append(take, func() error {
			b, err := a.bytes()
			if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EIDRM) ||
				err == nil && binary.LittleEndian.Uint32(b[20:])&shmDest != 0 { // ipc_perm.mode of struct shmid64_ds
				return &host.Refusal{Reasons: []string{fmt.Sprintf("process %d (%s) uses shared memory segment %d, which is marked to be destroyed",
					c.process.pid, c.process.tasks[0].status.Name, v.Inode)}}
			}
			return err
		})
	}
	return take
}

// askThread adds the questions of one thread.
func askThread(q *inquiry, i int, thread *ThreadSpec) func() error {
	tid := q.ask(i, 8, 1, sysPrctl, prGetTIDAddress, 0)
	stack := q.ask(i, 24, 1, sysSigaltstack, 0, 0)
	death := q.ask(i, 8, 1, sysPrctl, prGetPdeathsig, 0)
	bits := q.ask(i, 0, 0, sysPrctl, prGetSecureBits)
	slack := q.ask(i, 0, 0, sysPrctl, prGetTimerSlack)
	return func() error {
		var results [3][]uint64
		for i, a := range []answer{tid, stack, death} {
			var err error
			if results[i], err = a.words(); err != nil {
				return err
			}
		}
		thread.ClearTID = proc.Addr(results[0][0])
		thread.AltStack = AltStack{Addr: results[1][0], Flags: uint32(results[1][1]), LenBytes: results[1][2]}
		thread.DeathSignal = int(uint32(results[2][0]))
		secure, err := bits.value()
		if err != nil {
			return err
		}
		thread.Creds.SecureBits = uint32(secure)
		thread.TimerSlack, err = slack.value()
		return err
	}
}

// innerTID is the task's id in its own pid namespace.
func (t *frozenTask) innerTID() int { return t.status.NSPIDs[len(t.status.NSPIDs)-1] }

// outside reads what the kernel tells about a stopped process.
func (c *collector) outside(spec *ProcessSpec) error {
	status := c.process.tasks[0].status
	spec.Session = status.NSSIDs[len(status.NSSIDs)-1]
	spec.Group = status.NSPGIDs[len(status.NSPGIDs)-1]
	spec.Umask = status.Umask
	stat, err := proc.ReadStat(c.process.pid)
	if err != nil {
		return err
	}
	spec.Layout, spec.terminal = stat.Layout, stat.TTY != 0
	if spec.Auxv, err = os.ReadFile(fmt.Sprintf("/proc/%d/auxv", c.process.pid)); err != nil {
		return fmt.Errorf("read auxiliary vector: %w", err)
	}
	if spec.Limits, err = proc.Limits(c.process.pid); err != nil {
		return err
	}
	if spec.OOMScoreAdj, err = proc.OOMScoreAdj(c.process.pid); err != nil {
		return fmt.Errorf("read OOM score: %w", err)
	}
	filter, err := proc.CoredumpFilter(c.process.pid)
	if err != nil {
		return err
	}
	spec.CoreFilter = &filter
	if spec.Pending, err = ptrace.PendingSignals(c.process.tasks[0].tid, true); err != nil {
		return err
	}
	for i := range c.process.tasks {
		if err := c.threadOutside(&c.process.tasks[i], &spec.Threads[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) threadOutside(t *frozenTask, thread *ThreadSpec) error {
	var err error
	if thread.Rseq, err = ptrace.GetRseq(t.tid); err != nil {
		return err
	}
	if err := c.abortSequence(t, thread.Rseq); err != nil {
		return err
	}
	thread.TID, thread.Regs, thread.SigMask, thread.Comm = t.innerTID(), *t.regs, t.mask, t.status.Name
	resumeElsewhere(&thread.Regs, t.signalled())
	if thread.XState, err = ptrace.GetXState(t.tid); err != nil {
		return err
	}
	if thread.RobustList, _, err = proc.RobustList(t.tid); err != nil {
		return err
	}
	if thread.Scheduling, err = proc.ReadScheduling(t.tid); err != nil {
		return err
	}
	if thread.IOPriority, err = proc.IOPriority(t.tid); err != nil {
		return err
	}
	if thread.Pending, err = ptrace.PendingSignals(t.tid, false); err != nil {
		return err
	}
	creds := &thread.Creds
	creds.UIDs, creds.GIDs, creds.Groups = t.status.UIDs, t.status.GIDs, t.status.Groups
	creds.Caps, creds.NoNewPrivs = t.status.Caps, t.status.NoNewPrivs
	if t.status.Seccomp == 1 {
		return &host.Refusal{Reasons: []string{fmt.Sprintf("task %d (%s) is in strict seccomp mode", t.tid, t.status.Name)}}
	}
	if dispatches, err := ptrace.DispatchesCalls(t.tid); err != nil {
		return err
	} else if dispatches {
		return &host.Refusal{Reasons: []string{fmt.Sprintf("task %d (%s) handles its system calls itself (PR_SET_SYSCALL_USER_DISPATCH)", t.tid, t.status.Name)}}
	}
	for n := 0; t.status.Seccomp == 2; n++ {
		program, err := ptrace.SeccompFilter(t.tid, n)
		if errors.Is(err, syscall.ENOENT) {
			break
		}
		if err != nil {
			return err
		}
		creds.Filters = append(creds.Filters, program)
	}
	slices.Reverse(creds.Filters)
	return nil
}

// abortSequence moves a task that was stopped inside a restartable sequence to
// its abort handler, as the kernel does when it takes a CPU away. Otherwise
// code injected into the task would make the kernel forget the sequence.
func (c *collector) abortSequence(t *frozenTask, rseq ptrace.Rseq) error {
	if rseq.Addr == 0 {
		return nil
	}
	const critical = 8 // offset of rseq_cs in struct rseq
	b := make([]byte, 32)
	if err := c.memory.ReadAt(b[:8], proc.Addr(rseq.Addr+critical)); err != nil {
		return err
	}
	if addr := words(b)[0]; addr == 0 {
		return nil
	} else if err := c.memory.ReadAt(b, proc.Addr(addr)); err != nil {
		return nil // the kernel would kill the program for it; that is its own affair
	}
	w := words(b) // struct rseq_cs: version and flags, start_ip, post_commit_offset, abort_ip
	if t.regs.Rip-w[1] < w[2] {
		t.regs.Rip = w[3]
	}
	return nil
}

// files parks the descriptors and the files that the process stands in.
func (c *collector) files(spec *ProcessSpec) error {
	pid := c.process.pid
	var err error
	if spec.Exe, err = c.park.path(fmt.Sprintf("/proc/%d/exe", pid), os.O_RDONLY, object.UseExecutable); err != nil {
		return err
	}
	if spec.Cwd, err = c.park.path(fmt.Sprintf("/proc/%d/cwd", pid), openPath|syscall.O_DIRECTORY, object.UseDirectory); err != nil {
		return err
	}
	if spec.Root, err = c.root(); err != nil {
		return err
	}
	fds, err := proc.Descriptors(pid)
	if err != nil {
		return fmt.Errorf("list descriptors of %d: %w", pid, err)
	}
	for _, fd := range fds {
		d, err := proc.ReadDescriptor(pid, fd)
		if err != nil {
			return fmt.Errorf("read descriptor %d of %d: %w", fd, pid, err)
		}
		slot, err := c.park.descriptor(pid, fd, d.Target)
		if err != nil {
			return err
		}
		owner, err := proc.FileOwner(c.park.fds[slot])
		if err != nil {
			return err
		}
		spec.Descriptors = append(spec.Descriptors, DescriptorSpec{Owner: owner, FD: fd, Slot: slot, CloseOnExec: d.CloseOnExec, Target: d.Target, Connected: c.park.connected(slot), info: d})
	}
	return nil
}

// root parks the root directory if it is not the holder's.
func (c *collector) root() (Slot, error) {
	var mine, holders syscall.Stat_t
	path := fmt.Sprintf("/proc/%d/root", c.process.pid)
	if err := syscall.Stat(path, &mine); err != nil {
		return NoSlot, fmt.Errorf("read root directory: %w", err)
	}
	if err := syscall.Stat(fmt.Sprintf("/proc/%d/root", c.park.holderPID), &holders); err != nil {
		return NoSlot, fmt.Errorf("read root directory: %w", err)
	}
	if mine.Dev == holders.Dev && mine.Ino == holders.Ino {
		return NoSlot, nil
	}
	return c.park.path(path, openPath|syscall.O_DIRECTORY, object.UseDirectory)
}
