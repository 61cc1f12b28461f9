package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limit is one resource limit; ^0 is unlimited.
type Limit struct{ Soft, Hard uint64 }

// LimitCount is RLIM_NLIMITS.
const LimitCount = 16

// limitNames are the first columns of /proc/PID/limits, by RLIMIT_* number.
var limitNames = [LimitCount]string{
	"Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set",
	"Max processes", "Max open files", "Max locked memory", "Max address space", "Max file locks",
	"Max pending signals", "Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
}

// Limits reads all resource limits of a process, by RLIMIT_* number. Unlike
// prlimit(2) it needs no privilege over another user's process.
func Limits(pid int) ([LimitCount]Limit, error) {
	b, err := readFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return [LimitCount]Limit{}, fmt.Errorf("read limits: %w", err)
	}
	return ParseLimits(string(b))
}

// ParseLimits parses the format of /proc/PID/limits.
func ParseLimits(text string) ([LimitCount]Limit, error) {
	var limits [LimitCount]Limit
	found := 0
	for line := range strings.Lines(text) {
		for i, name := range limitNames {
			rest, ok := strings.CutPrefix(line, name)
			if !ok {
				continue
			}
			fields := strings.Fields(rest)
			if len(fields) < 2 {
				return limits, fmt.Errorf("parse limits: line %q", line)
			}
			soft, err1 := parseLimit(fields[0])
			hard, err2 := parseLimit(fields[1])
			if err1 != nil || err2 != nil {
				return limits, fmt.Errorf("parse limits: line %q", line)
			}
			limits[i] = Limit{soft, hard}
			found++
		}
	}
	if found != LimitCount {
		return limits, fmt.Errorf("parse limits: %d of %d", found, LimitCount)
	}
	return limits, nil
}

func parseLimit(s string) (uint64, error) {
	if s == "unlimited" {
		return ^uint64(0), nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// RobustList returns a task's list of robust futexes.
func RobustList(tid int) (head Addr, lenBytes uint64, err error) {
	var h, l uint64
	_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(tid), uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&l)))
	if errno != 0 {
		return 0, 0, fmt.Errorf("read robust list of task %d: %w", tid, errno)
	}
	return Addr(h), l, nil
}

// Scheduling is a task's policy, nice value and CPUs.
type Scheduling struct {
	Policy   uint32
	Nice     int32
	Priority uint32
	CPUs     unix.CPUSet
}

// ReadScheduling reads the scheduling of a task.
func ReadScheduling(tid int) (Scheduling, error) {
	var s Scheduling
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return s, fmt.Errorf("read scheduling of task %d: %w", tid, err)
	}
	s.Policy, s.Nice, s.Priority = attr.Policy, attr.Nice, attr.Priority
	if err := unix.SchedGetaffinity(tid, &s.CPUs); err != nil {
		return s, fmt.Errorf("read CPUs of task %d: %w", tid, err)
	}
	return s, nil
}

// SetScheduling makes a task's scheduling equal to s, touching only what
// differs from was.
func SetScheduling(tid int, s, was Scheduling) error {
	if s.Policy != was.Policy || s.Nice != was.Nice || s.Priority != was.Priority {
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: s.Policy, Nice: s.Nice, Priority: s.Priority}
		if err := unix.SchedSetAttr(tid, attr, 0); err != nil {
			return fmt.Errorf("set scheduling of task %d: %w", tid, err)
		}
	}
	if s.CPUs != was.CPUs {
		if err := unix.SchedSetaffinity(tid, &s.CPUs); err != nil {
			return fmt.Errorf("set CPUs of task %d: %w", tid, err)
		}
	}
	return nil
}

// OOMScoreAdj reads /proc/PID/oom_score_adj.
func OOMScoreAdj(pid int) (int, error) {
	b, err := readFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// SetOOMScoreAdj writes /proc/PID/oom_score_adj.
func SetOOMScoreAdj(pid, value int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(value)), 0)
}
