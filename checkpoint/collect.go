package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// collector reads everything of one frozen process but its pages.
type collector struct {
	process *frozenProcess
	park    *parking
	vmas    []proc.VMA
	insn    uint64    // a `syscall` instruction in the vdso
	scratch proc.Addr // a page for results of injected calls
	memory  *proc.Memory
}

// collect returns the spec of a frozen process, its VMAs not yet classified.
func collect(p *frozenProcess, park *parking) (spec *ProcessSpec, vmas []proc.VMA, err error) {
	c := &collector{process: p, park: park, memory: proc.OpenMemory(p.pid)}
	defer c.memory.Close()
	if c.vmas, err = proc.VMAs(p.pid); err != nil {
		return nil, nil, err
	}
	if err := c.enter(); err != nil {
		return nil, nil, err
	}
	spec, err = c.inside()
	if err := errors.Join(err, c.leave()); err != nil {
		return nil, nil, err
	}
	if err := c.outside(spec); err != nil {
		return nil, nil, err
	}
	return spec, c.vmas, nil
}

// enter prepares the leader for injected calls.
func (c *collector) enter() error {
	insn, err := findSyscall(c.memory, c.vmas)
	if err != nil {
		return err
	}
	c.insn = insn
	leader := c.process.tasks[0].tid
	for _, t := range c.process.tasks {
		if err := ptrace.SetSigMask(t.tid, ^uint64(0)); err != nil {
			return err
		}
	}
	addr, err := ptrace.Inject(leader, c.insn, sysMmap, 0, proc.PageBytes, uint64(proc.ProtRead|proc.ProtWrite), mapPrivate|mapAnonymous, ^uint64(0), 0)
	c.scratch = proc.Addr(addr)
	return err
}

// leave undoes enter: the page goes, registers and masks come back.
func (c *collector) leave() error {
	var errs []error
	if c.scratch != 0 {
		_, err := ptrace.Inject(c.process.tasks[0].tid, c.insn, sysMunmap, uint64(c.scratch), proc.PageBytes)
		errs = append(errs, err)
	}
	for _, t := range c.process.tasks {
		errs = append(errs, ptrace.SetRegs(t.tid, t.regs), ptrace.SetSigMask(t.tid, t.mask))
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

// ask injects a call into a task and reads lenBytes of its result.
func (c *collector) ask(tid, lenBytes int, nr uint64, args ...uint64) ([]byte, error) {
	if _, err := ptrace.Inject(tid, c.insn, nr, args...); err != nil {
		return nil, err
	}
	if lenBytes == 0 {
		return nil, nil
	}
	b := make([]byte, lenBytes)
	return b, c.memory.ReadAt(b, c.scratch)
}

// inside reads what only the process itself can ask for.
func (c *collector) inside() (*ProcessSpec, error) {
	spec := &ProcessSpec{PID: c.process.tasks[0].innerTID(), Call: proc.Addr(c.insn)}
	leader := c.process.tasks[0].tid
	brk, err := ptrace.Inject(leader, c.insn, sysBrk, 0)
	if err != nil {
		return nil, err
	}
	spec.Brk = proc.Addr(brk)
	dumpable, err := ptrace.Inject(leader, c.insn, sysPrctl, prGetDumpable)
	if err != nil {
		return nil, err
	}
	spec.Dumpable = dumpable == 1
	subreaper, err := c.ask(leader, 4, sysPrctl, prGetChildSubreaper, uint64(c.scratch))
	if err != nil {
		return nil, err
	}
	spec.ChildSubreaper = binary.LittleEndian.Uint32(subreaper) != 0
	if spec.SigActions, err = c.sigActions(); err != nil {
		return nil, err
	}
	if err := c.timers(spec); err != nil {
		return nil, err
	}
	for i := range c.process.tasks {
		thread, err := c.threadInside(&c.process.tasks[i])
		if err != nil {
			return nil, err
		}
		spec.Threads = append(spec.Threads, *thread)
	}
	return spec, nil
}

// sigActions asks only for the signals that status lists as caught or ignored.
func (c *collector) sigActions() ([]SigAction, error) {
	status := c.process.tasks[0].status
	var actions []SigAction
	for n := 1; n <= 64; n++ {
		if (status.SigCaught|status.SigIgnored)>>(n-1)&1 == 0 {
			continue
		}
		b, err := c.ask(c.process.tasks[0].tid, 32, sysRtSigaction, uint64(n), 0, uint64(c.scratch), 8)
		if err != nil {
			return nil, err
		}
		w := words(b)
		actions = append(actions, SigAction{Signal: n, Handler: w[0], Flags: w[1], Restorer: w[2], Mask: w[3]})
	}
	return actions, nil
}

func words(b []byte) []uint64 {
	w := make([]uint64, len(b)/8)
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return w
}

func (c *collector) threadInside(t *frozenTask) (*ThreadSpec, error) {
	thread := &ThreadSpec{TID: t.innerTID(), Regs: *t.regs, SigMask: t.mask, Comm: t.status.Name}
	resumeElsewhere(&thread.Regs, t.signalled())
	tid, err := c.ask(t.tid, 8, sysPrctl, prGetTIDAddress, uint64(c.scratch))
	if err != nil {
		return nil, err
	}
	thread.ClearTID = proc.Addr(words(tid)[0])
	alt, err := c.ask(t.tid, 24, sysSigaltstack, 0, uint64(c.scratch))
	if err != nil {
		return nil, err
	}
	thread.AltStack = AltStack{Addr: words(alt)[0], Flags: binary.LittleEndian.Uint32(alt[8:]), LenBytes: words(alt)[2]}
	death, err := c.ask(t.tid, 4, sysPrctl, prGetPdeathsig, uint64(c.scratch))
	if err != nil {
		return nil, err
	}
	thread.DeathSignal = int(binary.LittleEndian.Uint32(death))
	bits, err := ptrace.Inject(t.tid, c.insn, sysPrctl, prGetSecureBits)
	if err != nil {
		return nil, err
	}
	thread.Creds.SecureBits = uint32(bits)
	return thread, nil
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
	spec.Layout = stat.Layout
	if spec.Auxv, err = os.ReadFile(fmt.Sprintf("/proc/%d/auxv", c.process.pid)); err != nil {
		return fmt.Errorf("read auxiliary vector: %w", err)
	}
	if spec.Limits, err = proc.Limits(c.process.pid); err != nil {
		return err
	}
	if spec.OOMScoreAdj, err = proc.OOMScoreAdj(c.process.pid); err != nil {
		return fmt.Errorf("read OOM score: %w", err)
	}
	if spec.Pending, err = ptrace.PendingSignals(c.process.tasks[0].tid, true); err != nil {
		return err
	}
	for i := range c.process.tasks {
		if err := c.threadOutside(&c.process.tasks[i], &spec.Threads[i]); err != nil {
			return err
		}
	}
	return c.files(spec)
}

func (c *collector) threadOutside(t *frozenTask, thread *ThreadSpec) error {
	var err error
	if thread.XState, err = ptrace.GetXState(t.tid); err != nil {
		return err
	}
	if thread.Rseq, err = ptrace.GetRseq(t.tid); err != nil {
		return err
	}
	if thread.RobustList, _, err = proc.RobustList(t.tid); err != nil {
		return err
	}
	if thread.Scheduling, err = proc.ReadScheduling(t.tid); err != nil {
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

// files parks the descriptors and the files that the process stands in.
func (c *collector) files(spec *ProcessSpec) error {
	pid := c.process.pid
	var err error
	if spec.Exe, err = c.park.path(fmt.Sprintf("/proc/%d/exe", pid), os.O_RDONLY); err != nil {
		return err
	}
	if spec.Cwd, err = c.park.path(fmt.Sprintf("/proc/%d/cwd", pid), openPath|syscall.O_DIRECTORY); err != nil {
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
		slot, err := c.park.descriptor(pid, fd)
		if err != nil {
			return err
		}
		spec.Descriptors = append(spec.Descriptors, DescriptorSpec{FD: fd, Slot: slot, CloseOnExec: d.CloseOnExec, Target: d.Target, Connected: c.park.connected(slot)})
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
	return c.park.path(path, openPath|syscall.O_DIRECTORY)
}
