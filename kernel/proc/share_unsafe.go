package proc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Resource is what two tasks may have in common, linux/kcmp.h.
type Resource int

// The resources of Share.
const (
	ResourceMemory      Resource = 1
	ResourceDescriptors Resource = 2
	ResourceDirectories Resource = 3
	ResourceHandlers    Resource = 4
)

// Share reports whether two tasks share a resource by clone(2). On a kernel
// without CONFIG_KCMP it knows nothing and says ok false.
func Share(a, b int, what Resource) (shared, ok bool, err error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), uintptr(what), 0, 0, 0)
	switch {
	case errno == unix.ENOSYS:
		return false, false, nil
	case errno != 0:
		return false, false, fmt.Errorf("compare tasks %d and %d: %w", a, b, errno)
	}
	return r == 0, true, nil
}

// NamespaceNames are the files under /proc/PID/ns.
var NamespaceNames = [...]string{"mnt", "net", "ipc", "uts", "pid", "pid_for_children", "user", "cgroup", "time", "time_for_children"}

// NamespaceIDs returns the inode numbers of a task's namespaces in the order of
// NamespaceNames; 0 where the kernel has no such namespace.
func NamespaceIDs(pid int) ([len(NamespaceNames)]uint64, error) {
	var ids [len(NamespaceNames)]uint64
	for i, name := range NamespaceNames {
		var st syscall.Stat_t
		path := fmt.Sprintf("/proc/%d/ns/%s", pid, name)
		err := syscall.Stat(path, &st)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return ids, &os.PathError{Op: "stat", Path: path, Err: err}
		}
		ids[i] = st.Ino
	}
	return ids, nil
}

// Owner is who gets the signals of an open file, struct f_owner_ex.
type Owner struct {
	Kind int32 // 0 a thread, 1 a process, 2 a process group
	ID   int32 // in this process's pid namespace; 0: nobody
}

// FileOwner returns the owner of an open file of this process.
func FileOwner(fd int) (Owner, error) {
	var o Owner
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETOWN_EX, uintptr(unsafe.Pointer(&o)))
	if errno == unix.EBADF { // opened with O_PATH
		return Owner{}, nil
	}
	if errno != 0 {
		return Owner{}, fmt.Errorf("read owner of descriptor %d: %w", fd, errno)
	}
	return o, nil
}
