package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"torpor/host"
	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// inquiry is a script by which a stopped process asks the kernel what only it
// can ask. All its threads run their parts at the same time and stop once:
// stopping for every question took 60 to 120 us each.
type inquiry struct {
	process *frozenProcess
	memory  *proc.Memory
	script  *script
	most    uint64 // bytes mapped for it
	tasks   []*inquiryTask
	result  []byte // the script after it was executed
}

// inquiryTask is what one thread asks.
type inquiryTask struct {
	routine
	start areaAddr
}

// answer is where the result of a question will be.
type answer struct {
	q        *inquiry
	task     *inquiryTask
	entry    int
	data     areaAddr
	lenBytes int
}

// newInquiry maps space for the script into the process. It stays there until
// the process is killed or released.
func newInquiry(p *frozenProcess, memory *proc.Memory, insn uint64, timers int) (*inquiry, error) {
	most := uint64(24<<10) + 1024*uint64(len(p.tasks)) + 256*uint64(timers)
	most = (most + proc.PageBytes - 1) &^ (proc.PageBytes - 1)
	prot := uint64(proc.ProtRead | proc.ProtWrite | proc.ProtExec)
	addr, err := ptrace.Inject(p.tasks[0].tid, insn, sysMmap, 0, most, prot, mapPrivate|mapAnonymous, noFD, 0)
	if err != nil {
		return nil, p.explainNoArea(insn, err)
	}
	p.area, p.insn = areaRange{areaAddr(addr), most}, insn
	q := &inquiry{process: p, memory: memory, script: newScript(areaAddr(addr)), most: most}
	for range p.tasks {
		q.tasks = append(q.tasks, new(inquiryTask))
	}
	return q, nil
}

// explainNoArea says why a process can not have what an inquiry needs, as a
// refusal where that is of its own making.
func (p *frozenProcess) explainNoArea(insn uint64, cause error) error {
	name := fmt.Sprintf("process %d (%s)", p.pid, p.tasks[0].status.Name)
	switch {
	case errors.Is(cause, syscall.EACCES):
		bits, err := ptrace.Inject(p.tasks[0].tid, insn, sysPrctl, prGetMDWE, 0, 0, 0, 0)
		if err == nil && bits != 0 {
			cause = &host.Refusal{Reasons: []string{name + " may not make memory executable (PR_SET_MDWE)"}}
		}
	case errors.Is(cause, syscall.EAGAIN):
		cause = &host.Refusal{Reasons: []string{name + " locks all that it maps (MCL_FUTURE), and may lock no more"}}
	}
	if p.ignoresTrap() { // no more since the call was injected
		p.insn = insn
		return errors.Join(cause, p.ignoreTrapAgain())
	}
	return cause
}

// lockFuture returns the flags of mlockall by which a process locks what it maps
// from now on, which only the inquiry's area shows: it is locked, and populated
// unless that happens on fault.
func (q *inquiry) lockFuture() (int, error) {
	leader := &q.process.tasks[0]
	now, err := proc.ReadStatus(q.process.pid, leader.tid)
	if err != nil || now.LockedBytes <= leader.status.LockedBytes {
		return 0, err
	}
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", q.process.pid))
	if err != nil {
		return 0, fmt.Errorf("read pages: %w", err)
	}
	defer pagemap.Close()
	end := proc.Addr(q.process.area.end())
	present, err := proc.PresentPages(pagemap, end-proc.PageBytes, end)
	if err == nil && len(present) == 0 {
		return mclFuture | mclOnFault, nil
	}
	return mclFuture, err
}

// ask adds a call of one thread; space, if not 0, is how many bytes it writes
// and place the argument that gets their address.
func (q *inquiry) ask(task, space, place int, nr uint32, args ...uint64) answer {
	t := q.tasks[task]
	a := answer{q: q, task: t, entry: len(t.entries), lenBytes: space}
	if space > 0 {
		a.data = q.script.data(make([]byte, space))
		args[place] = uint64(a.data)
	}
	t.try(nr, args...)
	return a
}

// inquiryGuard is when a process that does not answer may have been killed. All
// answers take less than a millisecond.
const inquiryGuard = time.Second

// run lets the process execute the script.
func (q *inquiry) run() error {
	for _, t := range q.tasks {
		t.stop()
		t.start = q.script.place(&t.routine)
	}
	if uint64(len(q.script.b)) > q.most {
		return fmt.Errorf("ask process %d: %d bytes of questions", q.process.pid, len(q.script.b))
	}
	if err := q.memory.WriteAt(q.script.b, proc.Addr(q.script.base)); err != nil {
		return err
	}
	for i, t := range q.process.tasks {
		regs := *t.regs
		regs.Rip, regs.R12, regs.Orig_rax = uint64(q.script.interpreter()), uint64(q.tasks[i].start), notInCall
		if err := ptrace.SetRegs(t.tid, &regs); err != nil {
			return err
		}
		if err := ptrace.Continue(t.tid, 0); err != nil {
			return err
		}
	}
	defer ptrace.Guard(q.process.pid, inquiryGuard)()
	for _, t := range q.process.tasks {
		stop, err := ptrace.Wait(t.tid)
		if err != nil {
			return err
		}
		if !stop.Trapped() {
			return fmt.Errorf("ask process %d: %s", q.process.pid, stop)
		}
	}
	q.result = make([]byte, len(q.script.b))
	return q.memory.ReadAt(q.result, proc.Addr(q.script.base))
}

// value is what the call returned.
func (a answer) value() (uint64, error) {
	at := uint64(a.task.start-a.q.script.base) + uint64(a.entry)*entryBytes
	e := loadEntry(a.q.result[at:])
	if n := int64(e.result); n < 0 && n > -4096 {
		return 0, fmt.Errorf("ask process %d: system call %d: %w", a.q.process.pid, e.nr, syscall.Errno(-n))
	}
	return e.result, nil
}

// bytes is what the call wrote.
func (a answer) bytes() ([]byte, error) {
	if _, err := a.value(); err != nil {
		return nil, err
	}
	at := uint64(a.data - a.q.script.base)
	return a.q.result[at : at+uint64(a.lenBytes)], nil
}

// words is what the call wrote, as 64-bit words.
func (a answer) words() ([]uint64, error) {
	b, err := a.bytes()
	return words(b), err
}

func words(b []byte) []uint64 {
	w := make([]uint64, len(b)/8)
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return w
}
