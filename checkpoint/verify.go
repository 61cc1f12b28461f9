package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/zeebo/xxh3"

	"torpor/host"
	"torpor/kernel/proc"
)

// Fingerprint is the content of a run of pages of one mapping, as it was before
// the kill.
type Fingerprint struct {
	Process int // index in Spec.Processes
	Start   proc.Addr
	Hashes  []byte // xxh3 of each page, uint64 little endian; 0: can not be read
}

// fingerprint notes the content of what is in memory and of what is in the
// pages image. Pages that are neither are not touched: they would be made.
func (d *dump) fingerprint(memories []*proc.Memory) error {
	pagemaps := map[int]*os.File{}
	for _, m := range d.mappings {
		p := m.spec.process
		if pagemaps[p] == nil {
			var err error
			if pagemaps[p], err = os.Open(fmt.Sprintf("/proc/%d/pagemap", d.tree.processes[p].pid)); err != nil {
				return fmt.Errorf("verify: %w", err)
			}
			defer pagemaps[p].Close()
		}
		runs, err := d.contentOf(m, pagemaps[p])
		if err != nil {
			return err
		}
		skip := rseqAreas(&d.spec.Processes[p])
		for _, run := range runs {
			hashes, err := hashPages(memories[p], run, skip)
			if err != nil {
				return err
			}
			d.spec.Verify = append(d.spec.Verify, Fingerprint{p, run.Start, hashes})
		}
	}
	return nil
}

// contentOf returns the runs of pages of a mapping that hold anything.
func (d *dump) contentOf(m *mapping, pagemap *os.File) ([]PageRun, error) {
	switch m.spec.Kind {
	case VMAImage:
		return dataRuns(d.image, &m.spec)
	case VMAStack, VMACopied, VMABase:
		return m.spec.Used, nil
	case VMAFile, VMAShared, VMASysV:
		pages, err := proc.PresentPages(pagemap, m.spec.Start, m.spec.End)
		var runs []PageRun
		for _, p := range pages {
			runs = append(runs, PageRun{p.Start, p.End})
		}
		return runs, err
	}
	return nil, nil
}

// dataRuns returns the pages of a mapping whose place in the image is no hole.
func dataRuns(image *os.File, v *VMASpec) ([]PageRun, error) {
	const seekData, seekHole = 3, 4
	var runs []PageRun
	end := int64(v.Offset) + int64(v.Len())
	for at := int64(v.Offset); at < end; {
		data, err := image.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("verify: find data in image: %w", err)
		}
		if data >= end {
			break
		}
		hole, err := image.Seek(data, seekHole)
		if err != nil {
			return nil, fmt.Errorf("verify: find hole in image: %w", err)
		}
		at = min((hole+proc.PageBytes-1)&^(proc.PageBytes-1), end)
		start := v.Start + proc.Addr(data&^(proc.PageBytes-1)-int64(v.Offset))
		runs = append(runs, PageRun{start, v.Start + proc.Addr(at-int64(v.Offset))})
	}
	return runs, nil
}

// hashPages hashes a run of pages. The bytes of skip ranges (the kernel writes
// its CPU number into a registered rseq area) count as zeros.
func hashPages(mem *proc.Memory, run PageRun, skip []PageRun) ([]byte, error) {
	page := make([]byte, proc.PageBytes)
	var hashes []byte
	for at := run.Start; at < run.End; at += proc.PageBytes {
		err := mem.ReadAt(page, at)
		if errors.Is(err, syscall.EFAULT) || errors.Is(err, syscall.EIO) {
			hashes = binary.LittleEndian.AppendUint64(hashes, 0)
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
		hashes = binary.LittleEndian.AppendUint64(hashes, xxh3.Hash(page))
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
		run := PageRun{f.Start, f.Start + proc.Addr(len(f.Hashes)/8*proc.PageBytes)}
		v := p.find(run)
		if v == nil {
			return fmt.Errorf("verify process %d: no mapping at %x: %w", p.PID, uint64(f.Start), host.ErrCorrupt)
		}
		mem := proc.OpenMemory(pids[f.Process])
		now, err := hashPages(mem, run, rseqAreas(p))
		if err := errors.Join(err, mem.Close()); err != nil {
			return err
		}
		for i := 0; i < len(now); i += 8 {
			if !bytes.Equal(now[i:i+8], f.Hashes[i:i+8]) {
				return fmt.Errorf("verify process %d: page %x of %s %s differs: %w", p.PID,
					uint64(f.Start)+uint64(i/8)*proc.PageBytes, v.Kind, v.Name, host.ErrCorrupt)
			}
		}
	}
	return nil
}

// find returns the mapping that holds a run of pages.
func (p *ProcessSpec) find(run PageRun) *VMASpec {
	for i := range p.VMAs {
		if v := &p.VMAs[i]; v.Start <= run.Start && run.End <= v.End {
			return v
		}
	}
	return nil
}
