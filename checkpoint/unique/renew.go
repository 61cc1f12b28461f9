package unique

import (
	"errors"
	"fmt"
	"time"

	"torpor/kernel/proc"
	"torpor/kernel/ptrace"
)

// CallLimit is how long one function of a program may take. RAND_poll takes
// less than a millisecond; one that waits for a lock never returns.
const CallLimit = 2 * time.Second

// stackBytes is what a called function has for its stack: a thread's own may
// be too small, as those of goroutines are.
const stackBytes = 256 << 10

// Process is a restored process whose threads are all stopped, traced by this
// thread, and have not run yet.
type Process struct {
	Memory *proc.Memory // borrowed
	// Insn is the address of a `syscall` instruction.
	Insn    proc.Addr
	Threads []Thread // the leader first
}

// Thread is one of its threads.
type Thread struct {
	TID int // in this process's pid namespace
	// Regs are those with which it will go on. It need not have them yet.
	Regs *ptrace.Regs
}

// Renew gives a process random state that no other restore of its checkpoint
// has. Registers and signal masks stay as they are. After an error the
// process must not run: it may have the state of another, and may be in the
// middle of a call, which can only be ended by a kill.
func (s *Spec) Renew(p *Process) error {
	random := newGenerator()
	patches, err := s.patches(random)
	if err == nil {
		err = p.Memory.Scatter(patches)
	}
	if err == nil && len(s.Calls) > 0 {
		err = s.call(p, random)
	}
	if err != nil {
		return fmt.Errorf("renew random state: %w", err)
	}
	return nil
}

func (s *Spec) patches(random *generator) ([]proc.Patch, error) {
	var all []proc.Patch
	for i := range s.Places {
		patches, err := s.Places[i].patches(random)
		if err != nil {
			return nil, err
		}
		all = append(all, patches...)
	}
	return all, nil
}

// call makes all calls, on a stack that is there only for them.
func (s *Spec) call(p *Process, random *generator) error {
	if len(p.Threads) == 0 {
		return errors.New("no thread that could call")
	}
	stack, err := p.mapStack()
	if err != nil {
		return err
	}
	left := newBudget()
	for i := range s.Calls {
		threads := p.Threads
		if !s.Calls[i].EveryThread {
			threads = threads[:1]
		}
		for _, t := range threads {
			if err := s.Calls[i].make(p, t, stack, random, left); err != nil {
				return err
			}
		}
	}
	return p.unmapStack(stack)
}

// make follows the chain on one thread.
func (c *Call) make(p *Process, t Thread, stack uint64, random *generator, left budget) error {
	result := uint64(0)
	for _, step := range c.Steps {
		call := ptrace.FunctionCall{Func: uint64(step.Func), Stack: stack, Insn: uint64(p.Insn), Limit: left.limit(),
			FSBase: t.Regs.Fs_base, GSBase: t.Regs.Gs_base}
		for _, arg := range step.Args {
			switch arg {
			case ArgResult:
				call.Args = append(call.Args, result)
			default:
				call.Args = append(call.Args, random.Uint64())
			}
		}
		var err error
		if result, err = ptrace.Call(t.TID, call); err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
		if result == 0 && step.Must {
			return fmt.Errorf("%s: it reports a failure", step.Name)
		}
		if result == 0 {
			return nil
		}
	}
	return nil
}
