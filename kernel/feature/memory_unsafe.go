package feature

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"torpor/kernel/proc"
)

var memoryProbes = []probe{
	{Feature{"memory-exec", true, "starting restored processes without touching the service's files (memfd_create, executed)",
		"no process can be restored", "set the sysctl vm.memfd_noexec to 0 or 1; " + outside}, tryMemoryFile},
	{Feature{"read-memory", true, "copying memory out of a stopped process (process_vm_readv)",
		"no process can be dumped", configured("CONFIG_CROSS_MEMORY_ATTACH") + "; " + outside}, tryReadMemory},
	{Feature{"pagemap-scan", true, "finding the pages a service changed, without reading the rest (ioctl PAGEMAP_SCAN)",
		"no process can be dumped", newKernel}, tryPagemapScan},
	{Feature{"mm-map", true, "restoring heap end, arguments and executable of a process (PR_SET_MM_MAP)",
		"no process can be restored", configured("CONFIG_CHECKPOINT_RESTORE")}, tryMMMap},
	{Feature{"lock-on-fault", true, "refusing MADV_DONTNEED on memory mapped from a checkpoint (mlock2 with MLOCK_ONFAULT)",
		"memory allocators would get old data where they expect zeros, so nothing sleeps", "raise the limit of locked memory (ulimit -l); " + newKernel}, tryLockOnFault},
	{Feature{"map-files", true, "carrying shared anonymous memory and deleted files over sleep (/proc/PID/map_files)",
		"services with shared memory, such as nginx and PostgreSQL, can not sleep", configured("CONFIG_CHECKPOINT_RESTORE")}, tryMapFiles},
}

// tryMemoryFile is answered by the subject: it was started from such a file.
func tryMemoryFile(m *machine) (string, error) {
	return "", m.onSubject(func(*subject) error { return nil })
}

func tryReadMemory(m *machine) (string, error) {
	return "", m.onSubject(func(s *subject) error {
		b := make([]byte, len(subjectCode))
		local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
		remote := []unix.RemoteIovec{{Base: codeAddr, Len: len(b)}}
		if _, err := unix.ProcessVMReadv(s.pid, local, remote, 0); err != nil {
			return os.NewSyscallError("process_vm_readv", err)
		}
		if !bytes.Equal(b, subjectCode) {
			return fmt.Errorf("read memory: %x is not what is there", b)
		}
		return nil
	})
}

// tryPagemapScan changes the second of four pages and looks for it.
func tryPagemapScan(*machine) (string, error) {
	return "", withPages(4, func(b []byte) error {
		b[proc.PageBytes] = 1
		pagemap, err := os.Open("/proc/self/pagemap")
		if err != nil {
			return err
		}
		defer pagemap.Close()
		start := proc.Addr(uintptr(unsafe.Pointer(&b[0])))
		got, err := proc.PrivatePages(pagemap, start, start+proc.Addr(len(b)))
		if err != nil {
			return err
		}
		if len(got) != 1 || got[0].Start != start+proc.PageBytes || got[0].End != start+2*proc.PageBytes {
			return fmt.Errorf("scan pages: found %v, changed the page at %x", got, start+proc.PageBytes)
		}
		return nil
	})
}

// tryMMMap asks for the size of the argument, which kernels without the call
// do not know.
func tryMMMap(*machine) (string, error) {
	size := new(uint32)
	return "", os.NewSyscallError("prctl PR_SET_MM_MAP_SIZE",
		unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, uintptr(unsafe.Pointer(size)), 0, 0))
}

// tryLockOnFault shows that locked memory is not thrown away by madvise.
func tryLockOnFault(*machine) (string, error) {
	return "", withPages(4, func(b []byte) error {
		_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MLOCK_ONFAULT)
		if errno != 0 {
			return os.NewSyscallError("mlock2", errno)
		}
		if err := unix.Madvise(b, unix.MADV_DONTNEED); !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("madvise locked memory: want EINVAL, got %v", err)
		}
		return nil
	})
}

// tryMapFiles reads shared anonymous memory through its file.
func tryMapFiles(*machine) (string, error) {
	b, err := unix.Mmap(-1, 0, proc.PageBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return "", os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(b)
	copy(b, "torpor")
	start := uintptr(unsafe.Pointer(&b[0]))
	f, err := os.Open(fmt.Sprintf("/proc/self/map_files/%x-%x", start, start+proc.PageBytes))
	if err != nil {
		return "", err
	}
	defer f.Close()
	got := make([]byte, 6)
	if _, err := f.ReadAt(got, 0); err != nil {
		return "", err
	}
	if string(got) != "torpor" {
		return "", fmt.Errorf("read mapped file: %q is not what is there", got)
	}
	return "", nil
}

// withPages calls f with private memory that was never touched.
func withPages(n int, f func([]byte) error) error {
	b, err := unix.Mmap(-1, 0, n*proc.PageBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return errors.Join(os.NewSyscallError("madvise", err), unix.Munmap(b))
	}
	return errors.Join(f(b), unix.Munmap(b))
}

func fields(b []byte) []string { return slices.Collect(strings.FieldsSeq(string(b))) }
