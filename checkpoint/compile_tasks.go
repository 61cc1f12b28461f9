package checkpoint

import (
	"encoding/binary"
	"reflect"

	"torpor/kernel/ptrace"
)

// signals sets handlers, timers and the signals pending for the process.
// During a script every signal is blocked.
func (c *processCompiler) signals() {
	for _, a := range c.p.SigActions {
		if a.Signal == sigKill || a.Signal == sigStop {
			continue
		}
		c.call(sysRtSigaction, uint64(a.Signal), uint64(c.s.words(a.Handler, a.Flags, a.Restorer, a.Mask)), 0, 8)
	}
	for which, t := range c.p.ITimers {
		if t.ValueSec != 0 || t.ValueUsec != 0 {
			c.call(sysSetitimer, uint64(which), uint64(c.s.words(uint64(t.IntervalSec), uint64(t.IntervalUsec), uint64(t.ValueSec), uint64(t.ValueUsec))), 0)
		}
	}
	if c.p.NoHugePages {
		c.call(sysPrctl, prSetTHPDisable, 1, 0, 0, 0)
	}
	if c.p.MergeMemory {
		c.call(sysPrctl, prSetMemoryMerge, 1, 0, 0, 0)
	}
	if c.p.ChildSubreaper {
		c.call(sysPrctl, prSetChildSubreaper, 1)
	}
	for _, info := range c.p.Pending {
		c.call(sysRtSigqueueinfo, uint64(c.p.PID), uint64(signalOf(info)), uint64(c.s.data(info[:])))
	}
}

// signalOf is si_signo.
func signalOf(info ptrace.SigInfo) uint32 { return binary.LittleEndian.Uint32(info[:]) }

// posixTimers makes the timers with their ids; they may name threads, so all
// threads exist already.
func (c *processCompiler) posixTimers() {
	if len(c.p.Timers) == 0 {
		return
	}
	c.call(sysPrctl, prTimerRestoreIDs, 1)
	for _, t := range c.p.Timers {
		event := binary.LittleEndian.AppendUint64(nil, t.Value) // struct sigevent
		event = binary.LittleEndian.AppendUint32(event, uint32(t.Signal))
		event = binary.LittleEndian.AppendUint32(event, uint32(t.Notify))
		event = binary.LittleEndian.AppendUint32(event, uint32(t.TID))
		event = append(event, make([]byte, 64-len(event))...)
		c.call(sysTimerCreate, uint64(t.Clock), uint64(c.s.data(event)), uint64(c.s.words(uint64(t.ID))))
		setting := c.s.words(uint64(t.Spec[0]), uint64(t.Spec[1]), uint64(t.Spec[2]), uint64(t.Spec[3]))
		c.call(sysTimerSettime, uint64(t.ID), 0, uint64(setting), 0)
	}
	c.call(sysPrctl, prTimerRestoreIDs, 0)
}

// threads makes the other threads and ends the leader's routine. What all
// threads have in common is set before they are made, and inherited.
func (c *processCompiler) threads() {
	leader := &c.p.Threads[0]
	common := true
	for i := range c.p.Threads {
		common = common && reflect.DeepEqual(c.p.Threads[i].Creds, leader.Creds)
	}
	if common {
		c.inherited(&leader.Creds)
	}
	for barriers := c.p.Barriers; barriers != 0; barriers &= barriers - 1 { // cheap with one thread
		c.call(sysMembarrier, barriers&-barriers, 0)
	}
	for i := range c.p.Threads[1:] {
		t := &c.p.Threads[i+1]
		tail := c.tail(t, !common)
		flags := uint64(cloneVM | cloneFS | cloneFiles | cloneSighand | cloneThread | cloneSysvsem | clonePtrace)
		c.clone(c.cloneArgs(flags, 0, t.TID), c.s.place(tail), t.TID)
	}
	c.posixTimers()
	if c.p.LockFuture != 0 { // nothing is mapped any more
		c.call(sysMlockall, uint64(c.p.LockFuture))
	}
	c.limits()
	c.try(sysPersonality, uint64(c.p.Personality))
	c.entries = append(c.entries, c.tail(leader, !common).entries...)
}

// limits come when everything that they limit has been made, and while the
// process may still set them.
func (c *processCompiler) limits() {
	for i, l := range c.p.Limits {
		c.call(sysPrlimit64, 0, uint64(i), uint64(c.s.words(l.Soft, l.Hard)), 0)
	}
}

// inherited sets what a new thread gets from the one that makes it. Seccomp
// filters do not act while the tracer suspends them.
func (r *routineCompiler) inherited(creds *Credentials) {
	for n := uint64(0); n < 64; n++ {
		if creds.Caps.Bounding>>n&1 == 0 && n <= lastCapability {
			r.call(sysPrctl, prCapbsetDrop, n)
		}
	}
	var groups []byte
	for _, g := range creds.Groups {
		groups = binary.LittleEndian.AppendUint32(groups, g)
	}
	r.call(sysSetgroups, uint64(len(creds.Groups)), uint64(r.s.data(groups)))
	for _, f := range creds.Filters {
		program := r.s.data(f)
		r.call(sysSeccomp, seccompSetFilter, 0, uint64(r.s.words(uint64(len(f)/8), uint64(program))))
	}
	if creds.NoNewPrivs {
		r.call(sysPrctl, prSetNoNewPrivs, 1)
	}
}

// routineCompiler adds entries to a routine, with data in the script.
type routineCompiler struct {
	*routine
	s *script
}

func (c *processCompiler) inherited(creds *Credentials) {
	(&routineCompiler{&c.routine, c.s}).inherited(creds)
}

// tail is what each thread does last: its own registrations, its credentials,
// and the stop at which the tracer sets its registers.
func (c *processCompiler) tail(t *ThreadSpec, everything bool) *routine {
	r := &routineCompiler{&routine{}, c.s}
	if t.ClearTID != 0 {
		r.try(sysSetTidAddress, uint64(t.ClearTID))
	}
	if t.RobustList != 0 {
		r.call(sysSetRobustList, uint64(t.RobustList), robustListBytes)
	}
	if t.AltStack.Flags&stackDisable == 0 && t.AltStack.LenBytes != 0 {
		flags := uint64(t.AltStack.Flags &^ stackOnStack)
		r.call(sysSigaltstack, uint64(c.s.words(t.AltStack.Addr, flags, t.AltStack.LenBytes)), 0)
	}
	if t.Rseq.Addr != 0 {
		r.call(sysRseq, t.Rseq.Addr, uint64(t.Rseq.LenBytes), 0, uint64(t.Rseq.Signature))
	}
	r.call(sysPrctl, prSetName, uint64(c.s.string(t.Comm)))
	r.call(sysPrctl, prSetTimerSlack, t.TimerSlack)
	for _, info := range t.Pending {
		r.call(sysRtTgsigqueue, uint64(c.p.PID), uint64(t.TID), uint64(signalOf(info)), uint64(c.s.data(info[:])))
	}
	if everything {
		r.inherited(&t.Creds)
	}
	r.credentials(&t.Creds)
	if t != &c.p.Threads[0] {
		r.count(c.changed)
	} else {
		// A change of credentials by any thread resets it.
		if others := len(c.p.Threads) - 1; others > 0 {
			r.waitFor(c.changed, uint32(others))
		}
		c.owners(r.routine)
		dumpable := uint64(0)
		if c.p.Dumpable {
			dumpable = 1
		}
		r.call(sysPrctl, prSetDumpable, dumpable)
	}
	if t.DeathSignal != 0 {
		r.call(sysPrctl, prSetPdeathsig, uint64(t.DeathSignal))
	}
	r.stop()
	return r.routine
}

// credentials sets ids and capabilities. The ids change with the kernel's
// adjustment of capabilities switched off; what is left is set explicitly.
func (r *routineCompiler) credentials(creds *Credentials) {
	r.call(sysPrctl, prSetSecureBits, secbitNoSetuidFixup)
	g, u := creds.GIDs, creds.UIDs
	r.call(sysSetresgid, uint64(g[0]), uint64(g[1]), uint64(g[2]))
	r.call(sysSetresuid, uint64(u[0]), uint64(u[1]), uint64(u[2]))
	if g[3] != g[1] {
		r.try(sysSetfsgid, uint64(g[3]))
	}
	if u[3] != u[1] {
		r.try(sysSetfsuid, uint64(u[3]))
	}
	r.call(sysPrctl, prSetSecureBits, uint64(creds.SecureBits))
	caps := creds.Caps
	var b []byte // struct __user_cap_header_struct, then two __user_cap_data_struct
	for _, v := range []uint64{capVersion3, caps.Effective, caps.Permitted, caps.Inheritable, caps.Effective >> 32, caps.Permitted >> 32, caps.Inheritable >> 32} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
		if len(b) == 4 {
			b = binary.LittleEndian.AppendUint32(b, 0) // pid: the caller
		}
	}
	addr := r.s.data(b)
	r.call(sysCapset, uint64(addr), uint64(addr)+8)
	for n := uint64(0); n <= lastCapability; n++ {
		if caps.Ambient>>n&1 != 0 {
			r.call(sysPrctl, prCapAmbient, prCapAmbientRaise, n)
		}
	}
}
