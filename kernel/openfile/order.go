package openfile

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// kcmpFile is KCMP_FILE of linux/kcmp.h.
const kcmpFile = 0

// Same returns for each descriptor the index of the first one that is the same
// open file, which is its own index if there is none before it. Errors: ENOSYS
// from a kernel without CONFIG_KCMP.
func Same(fds []int) ([]int, error) {
	order := make([]int, len(fds))
	for i := range order {
		order[i] = i
	}
	var failed error
	pid := os.Getpid()
	slices.SortFunc(order, func(a, b int) int {
		n, err := compare(pid, fds[a], fds[b])
		if err != nil && failed == nil {
			failed = err
		}
		return cmp.Or(n, a-b)
	})
	if failed != nil {
		return nil, failed
	}
	first := make([]int, len(fds))
	for at, i := range order {
		first[i] = i
		if at == 0 {
			continue
		}
		before := order[at-1]
		n, err := compare(pid, fds[before], fds[i])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			first[i] = first[before]
		}
	}
	return first, nil
}

// compare orders two open files of this process, pid, by an order that is the
// kernel's own.
func compare(pid, a, b int) (int, error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), kcmpFile, uintptr(a), uintptr(b), 0)
	if errno != 0 {
		return 0, fmt.Errorf("compare open files: %w", errno)
	}
	switch r {
	case 0:
		return 0, nil
	case 1:
		return -1, nil
	}
	return 1, nil
}
