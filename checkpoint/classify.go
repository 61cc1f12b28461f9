package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"torpor/checkpoint/object"
	"torpor/host"
	"torpor/kernel/openfile"
	"torpor/kernel/proc"
)

// mapping is a VMA on its way into a dump: what is there, and how it will be
// rebuilt.
type mapping struct {
	vma   *proc.VMA
	spec  VMASpec
	fresh bool             // its slot is new: every page must be written, not only private ones
	pages []proc.PageRange // private pages; with Categories PageGuard: guards
}

// imageFile is the pages image as mappings show it.
type imageFile struct {
	dev, inode uint64
}

func (i imageFile) maps(v *proc.VMA) bool {
	return i.inode != 0 && v.Inode == i.inode && v.Dev == devString(i.dev)
}

// devString formats a device as maps does.
func devString(dev uint64) string {
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	return fmt.Sprintf("%02x:%02x", major, minor)
}

// classifier decides for every mapping of a process how it is rebuilt.
type classifier struct {
	pid      int
	image    imageFile   // the pages image that is written
	base     imageFile   // that of the ready checkpoint which the tree came from
	copied   []imageFile // images of other checkpoints, which this one must not need
	basePath string
	ownMost  uint64 // mappings up to this size that differ from the base leave it
	park     *parking
	parked   map[string]Slot // "dev:inode:write", or a path -> Slot of an open file
	pagemap  *os.File
	discards discards
	reasons  []string
}

// classify returns the mappings of a process. It refuses, naming each, those
// that can not be rebuilt.
func (c *classifier) classify(vmas []proc.VMA) ([]mapping, error) {
	var err error
	if c.pagemap, err = os.Open(fmt.Sprintf("/proc/%d/pagemap", c.pid)); err != nil {
		return nil, fmt.Errorf("read pages: %w", err)
	}
	defer c.pagemap.Close()
	var mappings []mapping
	for i := range vmas {
		v := &vmas[i]
		if v.Name == "[vsyscall]" {
			continue
		}
		if reason := unsavable(v); reason != "" {
			c.reasons = append(c.reasons, fmt.Sprintf("process %d maps %s", c.pid, reason))
			continue
		}
		m := mapping{vma: v, spec: VMASpec{Start: v.Start, End: v.End, Prot: v.Prot, Name: v.Name, NoReserve: v.Has("nr"), File: NoSlot}}
		if err := c.kind(&m); err != nil {
			return nil, err
		}
		mappings = append(mappings, m)
	}
	if len(c.reasons) > 0 {
		return nil, &host.Refusal{Reasons: c.reasons}
	}
	return mappings, nil
}

// unsavable names what can not be rebuilt, or returns "".
func unsavable(v *proc.VMA) string {
	switch {
	case ofKernel(v):
		return ""
	case v.Has("io") || v.Has("pf"):
		return "device memory: " + v.Name
	case v.Has("ht"):
		return "huge pages of hugetlbfs"
	case v.Has("um") || v.Has("uw"):
		return "memory under userfaultfd"
	case v.Has("ss"):
		return "a shadow stack"
	case v.ProtectionKey != 0:
		return "memory under a protection key"
	case strings.HasPrefix(v.Name, "anon_inode:"):
		return v.Name
	case v.Name == "[uprobes]":
		return "probes"
	}
	return ""
}

// ofKernel tells the mappings that the kernel makes in every process.
func ofKernel(v *proc.VMA) bool { return strings.HasPrefix(v.Name, "[vvar") || v.Name == "[vdso]" }

// kind sets how one mapping is rebuilt and finds its private pages.
func (c *classifier) kind(m *mapping) error {
	v := m.vma
	switch {
	case ofKernel(v):
		m.spec.Kind = VMASpecial
		return nil
	case v.Shared:
		return c.shared(m)
	case v.Has("dp"):
		m.spec.Kind = VMADrop
		return nil
	}
	var err error
	if m.pages, err = proc.PrivatePages(c.pagemap, v.Start, v.End); err != nil {
		return err
	}
	m.takeGuards()
	m.takeAdvice()
	switch {
	case c.discards == discardsZero && v.Inode == 0 && len(m.pages) > 0 && !v.Has("gd"):
		m.spec.Kind, m.fresh = VMACopied, true
		return nil
	case c.image.maps(v):
		m.spec.Kind, m.spec.Offset, m.spec.Lock = VMAImage, ImageOffset(v.Offset), c.discards == discardsFail
		return nil
	case c.base.maps(v) && c.staysOnBase(v, m.pages):
		m.spec.Kind, m.fresh, m.spec.Lock, m.spec.Offset = VMABase, true, c.discards == discardsFail, ImageOffset(v.Offset)
		m.spec.File, err = c.parkOnce(c.basePath)
		return err
	case slices.ContainsFunc(c.copied, func(i imageFile) bool { return i.maps(v) }):
		m.spec.Kind, m.fresh, m.spec.Lock = VMAImage, true, c.discards == discardsFail
		return nil
	case v.Has("gd"):
		m.spec.Kind, m.fresh = VMAStack, true
		return nil
	case v.Has("wf"):
		m.spec.Kind, m.fresh = VMACopied, true
		return nil
	case v.Inode == 0 && len(m.pages) == 0:
		m.spec.Kind = VMAAnon
		return nil
	case len(m.pages) == 0:
		return c.file(m, false)
	}
	m.spec.Kind, m.fresh, m.spec.Lock = VMAImage, true, c.discards == discardsFail
	return nil
}

// baseMost is how many bytes of a mapping may differ from the ready checkpoint
// before the whole of it is written to the tree's own image. They are read at
// each wake, where a mapping of the own image costs nothing: for python, 475
// pages in 276 runs, 13 ms where a page fault takes 10 us (TestReadyCheckpoint).
const baseMost = 4 << 20

// staysOnBase reports whether a mapping of the ready checkpoint's image goes on
// to be one.
func (c *classifier) staysOnBase(v *proc.VMA, private []proc.PageRange) bool {
	n := uint64(0)
	for _, r := range private {
		n += uint64(r.End - r.Start)
	}
	return n == 0 || n <= baseMost && v.Len() > c.ownMost
}

// parkOnce parks the file at path if that was not done yet.
func (c *classifier) parkOnce(path string) (Slot, error) {
	if slot, ok := c.parked[path]; ok {
		return slot, nil
	}
	slot, err := c.park.path(path, os.O_RDONLY, object.UseMapped)
	if err == nil {
		c.parked[path] = slot
	}
	return slot, err
}

// takeGuards moves guard regions out of the private pages.
func (m *mapping) takeGuards() {
	pages := m.pages[:0]
	for _, r := range m.pages {
		if r.Categories&proc.PageGuard != 0 {
			m.spec.Guards = append(m.spec.Guards, PageRun{r.Start, r.End})
			continue
		}
		pages = append(pages, r)
	}
	m.pages = pages
}

// takeAdvice notes the flags that madvise sets and that a new mapping lacks.
func (m *mapping) takeAdvice() {
	for _, a := range []struct {
		flag   string
		advice int
	}{
		{"dc", madvDontFork}, {"wf", madvWipeOnFork}, {"mg", madvMergeable}, {"dd", madvDontDump},
		{"hg", madvHugePage}, {"nh", madvNoHugePage},
	} {
		if m.vma.Has(a.flag) {
			m.spec.Advice = append(m.spec.Advice, a.advice)
		}
	}
	m.spec.Lock = m.vma.Has("lo")
}

// shared parks what a shared mapping shows.
func (c *classifier) shared(m *mapping) error {
	if strings.HasPrefix(m.vma.Name, "/SYSV") {
		m.spec.Kind, m.spec.Offset = VMASysV, ImageOffset(m.vma.Inode)
		return nil
	}
	m.spec.Kind = VMAShared
	write := m.vma.Has("mw")
	if err := c.file(m, write); err != nil || !write {
		return err
	}
	if seals, ok := openfile.Seals(c.park.fds[m.spec.File]); ok && seals&openfile.SealFutureWrite != 0 {
		c.reasons = append(c.reasons, fmt.Sprintf("process %d maps %s to write, which nobody can do again since it is sealed (F_SEAL_FUTURE_WRITE)", c.pid, m.vma.Name))
	}
	return nil
}

// file parks the file behind a mapping: the very inode, also when its name is
// gone or has another file now.
func (c *classifier) file(m *mapping, write bool) error {
	if m.spec.Kind == "" {
		m.spec.Kind = VMAFile
	}
	m.spec.Offset = ImageOffset(m.vma.Offset)
	key := fmt.Sprintf("%s:%d:%v", m.vma.Dev, m.vma.Inode, write)
	if slot, ok := c.parked[key]; ok {
		m.spec.File = slot
		return nil
	}
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	path := fmt.Sprintf("/proc/%d/map_files/%x-%x", c.pid, uint64(m.vma.Start), uint64(m.vma.End))
	slot, err := c.park.path(path, flags, object.UseMapped)
	if err != nil && errors.Is(err, syscall.EACCES) {
		return &host.Refusal{Reasons: []string{fmt.Sprintf("process %d maps %s, which can not be opened again", c.pid, m.vma.Name)}}
	}
	if err != nil {
		return err
	}
	c.parked[key], m.spec.File = slot, slot
	return nil
}
