package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PageBytes is the page size of amd64.
const PageBytes = 4096

// PageRange is a run of pages of equal categories.
type PageRange struct {
	Start, End Addr
	Categories uint64
}

// Categories of pages, linux/fs.h PAGE_IS_*.
const (
	PageWritten  = 1 << 1
	PageFile     = 1 << 2
	PagePresent  = 1 << 3
	PageSwapped  = 1 << 4
	PagePFNZero  = 1 << 5
	PageHuge     = 1 << 6
	PageSoftDirt = 1 << 7
	PageGuard    = 1 << 8
)

const ioctlPagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

// pmScanArg is struct pm_scan_arg.
type pmScanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64
	inverted, mask, anyof, returned                         uint64
}

type pageRegion struct{ start, end, categories uint64 }

// PrivatePages returns the pages in [start, end) that belong to the process
// alone: present or swapped, neither a page of a file nor the zero page.
// Pages of shared memory are not private either; ask only for private VMAs.
// Least kernel: 6.7.
func PrivatePages(pagemap *os.File, start, end Addr) ([]PageRange, error) {
	return scan(pagemap, pmScanArg{
		start: uint64(start), end: uint64(end),
		inverted: PageFile | PagePFNZero, mask: PageFile | PagePFNZero,
		anyof: PagePresent | PageSwapped, returned: PageGuard,
	})
}

// PresentPages returns the pages in [start, end) that the process has in
// memory or swap, whosever they are. Least kernel: 6.7.
func PresentPages(pagemap *os.File, start, end Addr) ([]PageRange, error) {
	return scan(pagemap, pmScanArg{start: uint64(start), end: uint64(end), anyof: PagePresent | PageSwapped})
}

func scan(pagemap *os.File, arg pmScanArg) ([]PageRange, error) {
	var found []PageRange
	regions := make([]pageRegion, 1024)
	arg.size = uint64(unsafe.Sizeof(arg))
	for arg.start < arg.end {
		arg.vec, arg.vecLen = uint64(uintptr(unsafe.Pointer(&regions[0]))), uint64(len(regions))
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, pagemap.Fd(), ioctlPagemapScan, uintptr(unsafe.Pointer(&arg)))
		runtime.KeepAlive(regions)
		if errno != 0 {
			return nil, fmt.Errorf("scan pages %x-%x: %w", arg.start, arg.end, errno)
		}
		for _, r := range regions[:n] {
			found = appendRange(found, PageRange{Addr(r.start), Addr(r.end), r.categories})
		}
		if arg.walkEnd <= arg.start {
			break
		}
		arg.start = arg.walkEnd
	}
	return found, nil
}

func appendRange(ranges []PageRange, r PageRange) []PageRange {
	if n := len(ranges); n > 0 && ranges[n-1].End == r.Start && ranges[n-1].Categories == r.Categories {
		ranges[n-1].End = r.End
		return ranges
	}
	return append(ranges, r)
}

// Memory reads the memory of one process. Close it when done.
type Memory struct {
	pid int
	mem *os.File // opened on the first range that needs it
}

// OpenMemory gives access to the memory of pid.
func OpenMemory(pid int) *Memory { return &Memory{pid: pid} }

// Close releases what was opened.
func (m *Memory) Close() error {
	if m.mem == nil {
		return nil
	}
	return m.mem.Close()
}

// ReadAt fills b from addr. process_vm_readv honours the protection of
// mappings; for what it refuses /proc/PID/mem, which does not, is used.
func (m *Memory) ReadAt(b []byte, addr Addr) error {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
	n, err := unix.ProcessVMReadv(m.pid, local, remote, 0)
	if err == nil && n == len(b) {
		return nil
	}
	if err != nil && !errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("read memory at %x: %w", uint64(addr), err)
	}
	if m.mem == nil {
		if m.mem, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", m.pid), os.O_RDWR, 0); err != nil {
			return fmt.Errorf("read memory at %x: %w", uint64(addr), err)
		}
	}
	if _, err := m.mem.ReadAt(b, int64(addr)); err != nil {
		return fmt.Errorf("read memory at %x: %w", uint64(addr), err)
	}
	return nil
}

// WriteAt writes b to addr, whatever the protection of the mapping.
func (m *Memory) WriteAt(b []byte, addr Addr) error {
	var err error
	if m.mem == nil {
		if m.mem, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", m.pid), os.O_RDWR, 0); err != nil {
			return fmt.Errorf("write memory at %x: %w", uint64(addr), err)
		}
	}
	if _, err := m.mem.WriteAt(b, int64(addr)); err != nil {
		return fmt.Errorf("write memory at %x: %w", uint64(addr), err)
	}
	return nil
}
