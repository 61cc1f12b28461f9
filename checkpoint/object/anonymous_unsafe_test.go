package object

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestRefusedAnonymous makes what this kernel has of the objects that are
// refused.
func TestRefusedAnonymous(t *testing.T) {
	tr := newTransfer(t)
	var words []string
	add := func(what string, fd uintptr, errno error) {
		t.Helper()
		if errors.Is(errno, unix.ENOSYS) || errors.Is(errno, unix.EPERM) || errors.Is(errno, unix.ENODEV) || errors.Is(errno, unix.ENOENT) {
			return
		}
		check(t, errno)
		tr.add(int(fd))
		words = append(words, what)
	}
	call := func(what string, number uintptr, args ...uintptr) {
		t.Helper()
		args = append(args, 0, 0, 0, 0)
		fd, _, errno := unix.Syscall6(number, args[0], args[1], args[2], args[3], 0, 0)
		if errno != 0 {
			add(what, 0, errno)
			return
		}
		unix.CloseOnExec(int(fd))
		add(what, fd, nil)
	}
	var ring [120]byte // struct io_uring_params
	call("an io_uring", unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&ring)))
	call("a userfaultfd", unix.SYS_USERFAULTFD, unix.O_CLOEXEC)
	call("secret memory", unix.SYS_MEMFD_SECRET, unix.O_CLOEXEC)
	call("a fanotify group", unix.SYS_FANOTIFY_INIT, unix.FAN_CLOEXEC, unix.O_RDONLY)
	mapping := struct{ kind, key, value, most uint32 }{2, 4, 4, 1} // BPF_MAP_TYPE_ARRAY
	call("a BPF map", unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&mapping)), unsafe.Sizeof(mapping))
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	add("a performance counter", uintptr(fd), err)
	huge, err := unix.MemfdCreate("huge", unix.MFD_CLOEXEC|unix.MFD_HUGETLB)
	add("huge pages of hugetlbfs", uintptr(huge), err)
	queue := openQueue(t, tr.from)
	tr.add(queue)
	mounting, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	add("a file system that is being mounted", uintptr(mounting), err)
	t.Logf("refused here: %q", words)
	tr.refused(append(words, "a POSIX message queue")...)
}

// openQueue makes a POSIX message queue in the container's ipc namespace.
func openQueue(t *testing.T, c *scratch) int {
	t.Helper()
	name := [...]byte{'q', 0}
	var fd uintptr
	c.doIPC(func() error {
		var errno unix.Errno
		fd, _, errno = unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name)), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return int(fd)
}
