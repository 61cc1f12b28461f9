package openfile

import (
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
	slices.SortStableFunc(order, func(a, b int) int {
		n, err := compare(fds[a], fds[b])
		if err != nil && failed == nil {
			failed = err
		}
		return n
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
		n, err := compare(fds[before], fds[i])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			first[i] = first[before]
		}
	}
	return first, nil
}

// compare orders two open files by an order that is the kernel's own.
func compare(a, b int) (int, error) {
	pid := uintptr(os.Getpid())
	r, _, errno := unix.RawSyscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
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
