package checkpoint

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/zeebo/xxh3"

	"torpor/host"
	"torpor/kernel/proc"
)

// Fingerprint is the content of one private mapping, page by page, as it was
// before the kill.
type Fingerprint struct {
	Process int // index in Spec.Processes
	Start   proc.Addr
	Pages   []uint64 // xxh3 of each page; 0: can not be read
}

// fingerprint notes the content of every private mapping.
func (d *dump) fingerprint(memories []*proc.Memory) error {
	for _, m := range d.mappings {
		if !comparable(&m.spec) {
			continue
		}
		pages, err := hashPages(memories[m.spec.process], &m.spec, rseqAreas(&d.spec.Processes[m.spec.process]))
		if err != nil {
			return err
		}
		d.spec.Verify = append(d.spec.Verify, Fingerprint{m.spec.process, m.spec.Start, pages})
	}
	return nil
}

// comparable tells the mappings that must be byte for byte what they were.
func comparable(v *VMASpec) bool {
	switch v.Kind {
	case VMAImage, VMAStack, VMACopied, VMAFile, VMAShared, VMASysV:
		return true
	}
	return false
}

// hashPages hashes the pages of a mapping. The bytes of skip ranges (the
// kernel writes its CPU number into a registered rseq area) count as zeros.
func hashPages(mem *proc.Memory, v *VMASpec, skip []PageRun) ([]uint64, error) {
	page := make([]byte, proc.PageBytes)
	var hashes []uint64
	for at := v.Start; at < v.End; at += proc.PageBytes {
		err := mem.ReadAt(page, at)
		if errors.Is(err, syscall.EFAULT) || errors.Is(err, syscall.EIO) {
			hashes = append(hashes, 0)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range skip {
			if s.Start < at+proc.PageBytes && at < s.End {
				clear(page[max(s.Start, at)-at : min(s.End, at+proc.PageBytes)-at])
			}
		}
		hashes = append(hashes, xxh3.Hash(page))
	}
	return hashes, nil
}

// rseqAreas are the bytes of a process that the kernel writes at any time.
func rseqAreas(p *ProcessSpec) []PageRun {
	var areas []PageRun
	for _, t := range p.Threads {
		if t.Rseq.Addr != 0 {
			start := proc.Addr(t.Rseq.Addr)
			areas = append(areas, PageRun{start, start + proc.Addr(max(t.Rseq.LenBytes, 32))})
		}
	}
	return areas
}

// compare checks the restored, still stopped processes (pids as this process
// sees them, in the order of Spec.Processes) against the fingerprints.
func (s *Spec) compare(pids []int) error {
	for _, f := range s.Verify {
		p := &s.Processes[f.Process]
		v := p.find(f.Start)
		if v == nil || len(f.Pages) != int(v.Len()/proc.PageBytes) {
			return fmt.Errorf("verify process %d: no mapping at %x: %w", p.PID, uint64(f.Start), host.ErrCorrupt)
		}
		mem := proc.OpenMemory(pids[f.Process])
		now, err := hashPages(mem, v, rseqAreas(p))
		if err := errors.Join(err, mem.Close()); err != nil {
			return err
		}
		for i := range now {
			if now[i] != f.Pages[i] {
				return fmt.Errorf("verify process %d: page %x of %s %s differs: %w", p.PID,
					uint64(v.Start)+uint64(i)*proc.PageBytes, v.Kind, v.Name, host.ErrCorrupt)
			}
		}
	}
	return nil
}

func (p *ProcessSpec) find(start proc.Addr) *VMASpec {
	for i := range p.VMAs {
		if p.VMAs[i].Start == start {
			return &p.VMAs[i]
		}
	}
	return nil
}
