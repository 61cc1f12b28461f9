package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"torpor/kernel/memory"
	"torpor/kernel/proc"
)

// copyBytes is how much is read from a process at once. 256 KB stays in the
// second-level cache between the read and the write.
const copyBytes = 256 << 10

var zeroPage = make([]byte, proc.PageBytes)

// pageWriter copies pages of processes into the pages image.
type pageWriter struct {
	image   *os.File
	buffer  []byte
	written int64 // bytes
}

// write copies what the mapping's slot lacks. A fresh slot is a hole first.
func (w *pageWriter) write(m *mapping, mem *proc.Memory, gap ImageOffset) error {
	if m.fresh {
		if err := memory.PunchHole(w.image, int64(*m.spec.slot()), int64(m.spec.Len())+int64(gap)); err != nil {
			return err
		}
	}
	ranges := m.pages
	if m.fresh && m.vma.Inode != 0 && m.spec.Kind != VMABase {
		ranges = []proc.PageRange{{Start: m.spec.Start, End: m.spec.End}}
	}
	for _, r := range ranges {
		if err := w.copyRange(m, mem, r); err != nil {
			return err
		}
		if m.spec.Kind != VMAImage {
			m.spec.Used = append(m.spec.Used, PageRun{r.Start, r.End})
		}
	}
	return nil
}

func (w *pageWriter) copyRange(m *mapping, mem *proc.Memory, r proc.PageRange) error {
	for at := r.Start; at < r.End; {
		n := min(int(r.End-at), len(w.buffer))
		b := w.buffer[:n]
		if err := mem.ReadAt(b, at); err != nil {
			if !m.fresh || !errors.Is(err, syscall.EFAULT) && !errors.Is(err, syscall.EIO) {
				return err
			}
			if err := readPages(b, mem, at); err != nil {
				return err
			}
		}
		offset := int64(*m.spec.slot()) + int64(at-m.spec.Start)
		if err := w.put(b, offset, m.fresh); err != nil {
			return err
		}
		at += proc.Addr(n)
	}
	return nil
}

// readPages reads page by page a mapping that reaches behind its file's end:
// pages there can not be read and are left zero.
func readPages(b []byte, mem *proc.Memory, at proc.Addr) error {
	for i := 0; i < len(b); i += proc.PageBytes {
		page := b[i : i+proc.PageBytes]
		err := mem.ReadAt(page, at+proc.Addr(i))
		if errors.Is(err, syscall.EFAULT) || errors.Is(err, syscall.EIO) {
			clear(page)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// put writes b; pages of zeros stay holes in a fresh slot.
func (w *pageWriter) put(b []byte, offset int64, skipZeros bool) error {
	for len(b) > 0 {
		n := len(b)
		if skipZeros {
			n = runLength(b)
			if n < 0 {
				b, offset = b[-n:], offset-int64(n)
				continue
			}
		}
		if _, err := w.image.WriteAt(b[:n], offset); err != nil {
			return fmt.Errorf("write pages image: %w", err)
		}
		w.written += int64(n)
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// runLength returns the length of the run of pages at the start of b that hold
// data, or minus the length of the run of pages that do not.
func runLength(b []byte) int {
	zero := bytes.Equal(b[:proc.PageBytes], zeroPage)
	n := proc.PageBytes
	for n < len(b) && bytes.Equal(b[n:n+proc.PageBytes], zeroPage) == zero {
		n += proc.PageBytes
	}
	if zero {
		return -n
	}
	return n
}

// identify returns what tells this image from another or a changed one.
func identify(image *os.File) (ImageIdentity, error) {
	info, err := image.Stat()
	if err != nil {
		return ImageIdentity{}, fmt.Errorf("identify pages image: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return ImageIdentity{Dev: st.Dev, Inode: st.Ino, LenBytes: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano()}, nil
}

// freeUnused gives back what lies between the slots in use.
func freeUnused(image *os.File, keep []extent) error {
	at := ImageOffset(0)
	for _, e := range keep {
		if e.start > at {
			if err := memory.PunchHole(image, int64(at), int64(e.start-at)); err != nil {
				return err
			}
		}
		at = max(at, e.end)
	}
	info, err := image.Stat()
	if err != nil {
		return err
	}
	if left := info.Size() - int64(at); left > 0 {
		return memory.PunchHole(image, int64(at), left)
	}
	return nil
}
