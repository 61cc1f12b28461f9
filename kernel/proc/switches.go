package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ContextSwitches counts how often threads of processes gave up a CPU. Two
// equal counts mean that none of them waited and ran in between; one that runs
// all the time shows none either. Threads that end meanwhile are left out.
func ContextSwitches(pids []int) (uint64, error) {
	var sum uint64
	for _, pid := range pids {
		tids, err := Tasks(pid)
		if gone(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("list threads of %d: %w", pid, err)
		}
		for _, tid := range tids {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
			if gone(err) {
				continue
			}
			if err != nil {
				return 0, fmt.Errorf("read status: %w", err)
			}
			n, err := parseSwitches(string(b))
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// parseSwitches sums both counters of /proc/PID/status.
func parseSwitches(text string) (uint64, error) {
	var sum uint64
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		if !strings.HasSuffix(key, "voluntary_ctxt_switches") {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse status: %s: %w", key, err)
		}
		sum += n
	}
	return sum, nil
}
