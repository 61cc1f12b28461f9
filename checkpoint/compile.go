package checkpoint

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"torpor/kernel/proc"
)

// special is one of the kernel's own mappings (vvar, vdso) of a stub.
type special struct {
	name  string
	start proc.Addr
	len   uint64
}

// program is a compiled checkpoint: the content of an area and where its
// routines begin.
type program struct {
	bytes   []byte
	base    areaAddr
	interp  areaAddr
	prelude areaAddr // what a stub executes first; ends in waiting
	restore areaAddr // what makes the tree
	ignore  areaAddr // struct kernel_sigaction that ignores
	tasks   int      // threads that will stop for their registers
}

// compiler turns a Spec into a program.
type compiler struct {
	spec     *Spec
	holder   Holder
	specials []special // of the stub; nil only to learn the program's length
	area     areaRange
	s        *script
	groups   map[int]areaAddr // word that counts when the group of this pid exists
}

// areaRange is address space that is free in every process of a tree: first
// the area, behind it room for the kernel's mappings on their way.
type areaRange struct {
	base     areaAddr
	lenBytes uint64 // of the area
}

func (a areaRange) end() uint64 { return uint64(a.base) + a.lenBytes }

// compile makes the program. It is deterministic and its length does not
// depend on the stub.
func compile(spec *Spec, holder Holder, area areaRange, specials []special) (*program, error) {
	c := &compiler{spec: spec, holder: holder, specials: specials, area: area, s: newScript(area.base), groups: map[int]areaAddr{}}
	p := &program{base: area.base, interp: c.s.interpreter()}
	p.ignore = c.s.words(sigIgnore, 0, 0, 0)
	for i := range spec.Processes {
		c.groups[spec.Processes[i].PID] = c.s.words(0, 0)
		p.tasks += len(spec.Processes[i].Threads)
	}
	p.prelude = c.prelude()
	// Children are placed before their parents, who name them.
	routines := map[int]areaAddr{}
	for i := len(spec.Processes) - 1; i >= 0; i-- {
		addr, err := c.process(&spec.Processes[i], routines)
		if err != nil {
			return nil, err
		}
		routines[spec.Processes[i].PID] = addr
	}
	p.restore = c.restore(routines)
	p.bytes = c.s.b
	return p, nil
}

// prelude is what a stub does before it waits.
func (c *compiler) prelude() areaAddr {
	var r routine
	all := c.s.words(^uint64(1 << (sigTrap - 1))) // as in collector.block
	r.call(sysRtSigprocmask, 2, uint64(all), 0, 8)
	r.call(sysPrctl, prSetName, uint64(c.s.string(StubName)))
	if c.spec.Time != nil { // the tree inherits it
		r.expect(0, sysPidfdOpen, uint64(c.spec.HolderPID), 0)
		r.expect(1, sysPidfdGetfd, 0, uint64(c.holder.number(*c.spec.Time)), 0)
		r.call(sysSetns, 1, cloneNewTime)
		r.call(sysClose, 1)
		r.call(sysClose, 0)
	}
	r.sleep()
	return c.s.place(&r)
}

// restore is what the stub does when it is time: it makes the processes that
// have no parent in the tree as its siblings, so that the holder becomes their
// parent, and ends.
func (c *compiler) restore(routines map[int]areaAddr) areaAddr {
	var r routine
	for i := range c.spec.Processes {
		p := &c.spec.Processes[i]
		if p.Parent == 0 {
			r.clone(c.cloneArgs(cloneParent|clonePtrace, 0, p.PID), routines[p.PID], p.PID)
		}
	}
	r.call(sysExit, 0)
	return c.s.place(&r)
}

// cloneArgs places struct clone_args (linux/sched.h) for a task with this id.
func (c *compiler) cloneArgs(flags, exitSignal uint64, tid int) areaAddr {
	ids := binary.LittleEndian.AppendUint32(nil, uint32(tid))
	return c.s.words(flags, 0, 0, 0, exitSignal, 0, 0, 0, uint64(c.s.data(ids)), 1, 0)
}

// process places the routines of one process and returns its leader's.
func (c *compiler) process(p *ProcessSpec, children map[int]areaAddr) (areaAddr, error) {
	pc := &processCompiler{compiler: c, p: p, fds: map[int]bool{0: true}, changed: c.s.words(0, 0)}
	if p.Parent == 0 {
		pc.expect(0, sysPidfdOpen, uint64(c.spec.HolderPID), 0)
	}
	pc.sessionAndChildren(children)
	if err := pc.memory(); err != nil {
		return 0, err
	}
	pc.layout()
	pc.files()
	pc.signals()
	pc.threads()
	return c.s.place(&pc.routine), nil
}

// processCompiler compiles the leader's routine of one process. Descriptor 0
// of the new process is a pidfd of the holder until files moves it away.
type processCompiler struct {
	*compiler
	routine
	p      *ProcessSpec
	holder int          // descriptor number of the holder's pidfd
	fds    map[int]bool // descriptors in use at this point of the script
	lowest int          // no descriptor below is free

	changed areaAddr // word that counts the threads with their credentials
}

// sessionAndChildren makes the session and the group, then the children, then
// joins a group of somebody else, who may be a child.
func (c *processCompiler) sessionAndChildren(children map[int]areaAddr) {
	leads := c.p.Group == c.p.PID
	switch {
	case c.p.Session == c.p.PID:
		c.expect(uint64(c.p.PID), sysSetsid)
	case leads:
		c.call(sysSetpgid, 0, 0)
	}
	if leads {
		c.count(c.groups[c.p.PID])
	}
	for i := range c.spec.Processes {
		child := &c.spec.Processes[i]
		if child.Parent == c.p.PID {
			c.clone(c.cloneArgs(clonePtrace, signalChild, child.PID), children[child.PID], child.PID)
		}
	}
	if !leads {
		c.waitFor(c.groups[c.p.Group], 1)
		c.call(sysSetpgid, 0, uint64(c.p.Group))
	}
}

// lowestFree is the number the kernel gives the next descriptor.
func (c *processCompiler) lowestFree() int {
	for c.fds[c.lowest] {
		c.lowest++
	}
	return c.lowest
}

// take fetches a parked descriptor and returns its number in the new process.
func (c *processCompiler) take(s Slot) int {
	fd := c.lowestFree()
	c.expect(uint64(fd), sysPidfdGetfd, uint64(c.holder), uint64(c.compiler.holder.number(s)), 0)
	c.fds[fd] = true
	return fd
}

func (c *processCompiler) drop(fd int) {
	c.call(sysClose, uint64(fd))
	delete(c.fds, fd)
	c.lowest = min(c.lowest, fd)
}

// files gives the process its descriptors, directories and umask.
func (c *processCompiler) files() {
	descriptors := slices.SortedFunc(slices.Values(c.p.Descriptors), func(a, b DescriptorSpec) int { return cmp.Compare(a.FD, b.FD) })
	above := 1
	for _, d := range descriptors {
		above = max(above, d.FD+1)
		for _, e := range slices.Concat(d.Signals, d.Events) {
			above = max(above, e.FD+1) // which may be none any more
		}
	}
	c.expect(uint64(above), sysFcntl, 0, fDupFDCloexec, uint64(above))
	c.holder, c.fds[above] = above, true
	c.drop(0)
	cwd := c.take(c.p.Cwd)
	if c.p.Root != NoSlot {
		root := c.take(c.p.Root)
		c.call(sysFchdir, uint64(root))
		c.call(sysChroot, uint64(c.s.string(".")))
		c.drop(root)
	}
	c.call(sysFchdir, uint64(cwd))
	c.drop(cwd)
	c.try(sysUmask, uint64(c.p.Umask))
	for _, d := range descriptors {
		c.descriptor(d)
	}
	for i := range descriptors {
		c.events(&descriptors[i])
	}
	c.drop(above)
}

// owners says again who gets the signals of open files: the owners that the
// files remember are gone. A process that is not there yet does it itself.
func (c *processCompiler) owners(r *routine) {
	for _, d := range c.p.Descriptors {
		if d.Owner.ID != 0 {
			r.try(sysFcntl, uint64(d.FD), fSetOwnEx, uint64(c.s.words(uint64(uint32(d.Owner.Kind))|uint64(d.Owner.ID)<<32)))
		}
	}
}

func (c *processCompiler) descriptor(d DescriptorSpec) {
	fd := c.take(d.Slot) // close-on-exec
	switch {
	case fd != d.FD:
		flags := uint64(0)
		if d.CloseOnExec {
			flags = oCloexec
		}
		c.expect(uint64(d.FD), sysDup3, uint64(fd), uint64(d.FD), flags)
		c.fds[d.FD] = true
		c.drop(fd)
	case !d.CloseOnExec:
		c.call(sysFcntl, uint64(fd), fSetFD, 0)
	}
}

// findArea finds address space for an area of lenBytes and, behind it, for
// spare bytes, that no process of the tree uses.
func findArea(spec *Spec, lenBytes, spare uint64) (areaRange, error) {
	const (
		first = 0x20000 // behind the stub's page
		last  = 0x7fff00000000
	)
	var used []PageRun
	for i := range spec.Processes {
		for _, v := range spec.Processes[i].VMAs {
			used = append(used, PageRun{v.Start, v.End})
		}
	}
	slices.SortFunc(used, func(a, b PageRun) int { return cmp.Compare(a.Start, b.Start) })
	at := proc.Addr(first)
	for _, u := range append(used, PageRun{last, last}) {
		if u.Start >= at+proc.Addr(lenBytes+spare) {
			return areaRange{areaAddr(at), lenBytes}, nil
		}
		at = max(at, u.End)
	}
	return areaRange{}, fmt.Errorf("find %d free bytes of address space: none", lenBytes)
}
