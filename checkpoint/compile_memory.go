package checkpoint

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"torpor/kernel/proc"
)

// memory replaces the address space: the kernel's own mappings are carried out
// of the way, everything else but the area goes, then the mappings are made.
func (c *processCompiler) memory() error {
	moves, err := c.specialMoves()
	if err != nil {
		return err
	}
	spare := c.area.end()
	for _, m := range moves {
		c.mremap(m.from, m.len, spare)
		spare += m.len
	}
	c.call(sysMunmap, 0, uint64(c.area.base))
	c.call(sysMunmap, spare, taskSize-spare)
	c.mappings()
	c.differences()
	spare = c.area.end()
	for _, m := range moves {
		c.mremap(spare, m.len, m.to)
		spare += m.len
	}
	return nil
}

func (c *processCompiler) mremap(from, lenBytes, to uint64) {
	c.expect(to, sysMremap, from, lenBytes, lenBytes, mremapMayMove|mremapFixed, to)
}

// move is the way of one of the kernel's mappings.
type move struct{ from, to, len uint64 }

// specialMoves pairs the stub's vvar and vdso mappings with the process's.
func (c *processCompiler) specialMoves() ([]move, error) {
	var moves []move
	for i := range c.p.VMAs {
		v := &c.p.VMAs[i]
		if v.Kind != VMASpecial {
			continue
		}
		m := move{to: uint64(v.Start), len: v.Len()}
		if c.specials != nil {
			at := slices.IndexFunc(c.specials, func(s special) bool { return s.name == v.Name && s.len == v.Len() })
			if at < 0 {
				return nil, fmt.Errorf("compile process %d: this kernel has no %s of %d bytes", c.p.PID, v.Name, v.Len())
			}
			m.from = uint64(c.specials[at].start)
		}
		moves = append(moves, m)
	}
	if c.specials != nil && len(moves) != len(c.specials) {
		return nil, fmt.Errorf("compile process %d: it has %d of the kernel's mappings, this kernel makes %d", c.p.PID, len(moves), len(c.specials))
	}
	return moves, nil
}

// mappings makes the mappings, file by file so that each is fetched once.
func (c *processCompiler) mappings() {
	byFile := slices.SortedStableFunc(slices.Values(c.p.VMAs), func(a, b VMASpec) int { return cmp.Compare(c.backing(&a), c.backing(&b)) })
	fd, slot := -1, NoSlot
	for i := range byFile {
		v := &byFile[i]
		if s := c.backing(v); s != slot {
			if fd >= 0 {
				c.drop(fd)
			}
			fd, slot = c.take(s), s
		}
		c.mapping(v, fd)
	}
	if fd >= 0 {
		c.drop(fd)
	}
}

// backing is the parked file that a mapping is made from.
func (c *processCompiler) backing(v *VMASpec) Slot {
	switch v.Kind {
	case VMAFile, VMAShared, VMABase:
		return v.File
	case VMAImage, VMAStack, VMACopied:
		return c.spec.Pages
	}
	return NoSlot
}

const noFD = ^uint64(0)

// mapping makes one mapping; fd is its backing.
func (c *processCompiler) mapping(v *VMASpec, fd int) {
	start, lenBytes, prot, file := uint64(v.Start), v.Len(), uint64(v.Prot), uint64(fd)
	flags := uint64(mapPrivate | mapFixed)
	if v.NoReserve {
		flags |= mapNoReserve
	}
	switch v.Kind {
	case VMASpecial:
		return
	case VMAImage, VMAFile, VMABase:
		c.expect(start, sysMmap, start, lenBytes, prot, flags, file, uint64(v.Offset))
	case VMAShared:
		c.expect(start, sysMmap, start, lenBytes, prot, flags&^mapPrivate|mapShared, file, uint64(v.Offset))
	case VMASysV:
		c.sysV(v)
	case VMAAnon:
		c.expect(start, sysMmap, start, lenBytes, prot, flags|mapAnonymous, noFD, 0)
	case VMADrop:
		c.expect(start, sysMmap, start, lenBytes, prot, mapDroppable|mapFixed|mapAnonymous, noFD, 0)
	case VMAStack:
		c.read(v, flags|mapAnonymous|mapGrowsDown, file)
	case VMACopied:
		c.read(v, flags|mapAnonymous, file)
	}
	c.finish(v)
}

// read makes an anonymous mapping and reads its used pages.
func (c *processCompiler) read(v *VMASpec, flags, file uint64) {
	start, lenBytes := uint64(v.Start), v.Len()
	c.expect(start, sysMmap, start, lenBytes, uint64(v.Prot|proc.ProtRead|proc.ProtWrite), flags, noFD, 0)
	c.fill(v, file)
	if v.Prot&proc.ProtWrite == 0 {
		c.call(sysMprotect, start, lenBytes, uint64(v.Prot))
	}
}

// fill reads a mapping's used pages from its place in the image.
func (c *processCompiler) fill(v *VMASpec, image uint64) {
	for _, used := range v.Used {
		n := uint64(used.End - used.Start)
		c.expect(n, sysPread64, image, uint64(used.Start), n, uint64(*v.slot())+uint64(used.Start-v.Start))
	}
}

// differences reads what mappings of the ready checkpoint's image have more
// than it. They are writable for that long.
func (c *processCompiler) differences() {
	image := -1
	for i := range c.p.VMAs {
		v := &c.p.VMAs[i]
		if v.Kind != VMABase || len(v.Used) == 0 {
			continue
		}
		if image < 0 {
			image = c.take(c.spec.Pages)
		}
		if v.Prot&proc.ProtWrite == 0 {
			c.call(sysMprotect, uint64(v.Start), v.Len(), uint64(v.Prot|proc.ProtRead|proc.ProtWrite))
		}
		c.fill(v, uint64(image))
		if v.Prot&proc.ProtWrite == 0 {
			c.call(sysMprotect, uint64(v.Start), v.Len(), uint64(v.Prot))
		}
	}
	if image >= 0 {
		c.drop(image)
	}
}

func (c *processCompiler) sysV(v *VMASpec) {
	flags := uint64(shmRemap)
	if v.Prot&proc.ProtWrite == 0 {
		flags |= shmReadOnly
	}
	c.expect(uint64(v.Start), sysShmat, uint64(v.Offset), uint64(v.Start), flags)
}

// finish gives a mapping what mmap can not.
func (c *processCompiler) finish(v *VMASpec) {
	start, lenBytes := uint64(v.Start), v.Len()
	for _, advice := range v.Advice {
		if advice == madvHugePage || advice == madvNoHugePage || advice == madvMergeable {
			c.try(sysMadvise, start, lenBytes, uint64(advice)) // hints; not for mappings of files
			continue
		}
		c.call(sysMadvise, start, lenBytes, uint64(advice))
	}
	for _, g := range v.Guards {
		c.call(sysMadvise, uint64(g.Start), uint64(g.End-g.Start), madvGuardInstall)
	}
	if v.Lock { // last: locked memory takes no guards
		c.call(sysMlock2, start, lenBytes, mlockOnFault)
	}
}

// layout tells the kernel where code, data, heap, stack, arguments and
// environment are, and which file the process executes.
func (c *processCompiler) layout() {
	exe := c.take(c.p.Exe)
	l := &c.p.Layout
	auxv := c.s.data(c.p.Auxv)
	var b []byte // struct prctl_mm_map, linux/prctl.h
	for _, v := range []uint64{
		uint64(l.StartCode), uint64(l.EndCode), uint64(l.StartData), uint64(l.EndData), uint64(l.StartBrk), uint64(c.p.Brk),
		uint64(l.StartStack), uint64(l.ArgStart), uint64(l.ArgEnd), uint64(l.EnvStart), uint64(l.EnvEnd), uint64(auxv),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.p.Auxv)))
	b = binary.LittleEndian.AppendUint32(b, uint32(exe))
	c.call(sysPrctl, prSetMM, prSetMMMap, uint64(c.s.data(b)), uint64(len(b)))
	c.drop(exe)
}

// specialsOf reads the kernel's own mappings of a stub.
func specialsOf(pid int) ([]special, error) {
	vmas, err := proc.Maps(pid)
	if err != nil {
		return nil, err
	}
	found := []special{}
	for i := range vmas {
		if ofKernel(&vmas[i]) {
			found = append(found, special{vmas[i].Name, vmas[i].Start, vmas[i].Len()})
		}
	}
	return found, nil
}
