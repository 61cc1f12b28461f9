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
	// ResetOnFork says that children get the default policy (SCHED_RESET_ON_FORK).
	ResetOnFork bool `json:",omitempty"`
	// Runtime, Deadline and Period, in ns, are those of SCHED_DEADLINE.
	Runtime  uint64 `json:",omitempty"`
	Deadline uint64 `json:",omitempty"`
	Period   uint64 `json:",omitempty"`
}

const schedDeadline = 6 // SCHED_DEADLINE

// ReadScheduling reads the scheduling of a task.
func ReadScheduling(tid int) (Scheduling, error) {
	var s Scheduling
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return s, fmt.Errorf("read scheduling of task %d: %w", tid, err)
	}
	s.Policy, s.Nice, s.Priority = attr.Policy, attr.Nice, attr.Priority
	s.ResetOnFork = attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0
	if s.Policy == schedDeadline {
		s.Runtime, s.Deadline, s.Period = attr.Runtime, attr.Deadline, attr.Period
	}
	if err := unix.SchedGetaffinity(tid, &s.CPUs); err != nil {
		return s, fmt.Errorf("read CPUs of task %d: %w", tid, err)
	}
	return s, nil
}

// SetScheduling makes a task's scheduling equal to s, touching only what
// differs from was.
func SetScheduling(tid int, s, was Scheduling) error {
	cpus := was.CPUs
	was.CPUs = s.CPUs
	if s != was {
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: s.Policy, Nice: s.Nice, Priority: s.Priority,
			Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
		if s.ResetOnFork {
			attr.Flags = unix.SCHED_FLAG_RESET_ON_FORK
		}
		if err := unix.SchedSetAttr(tid, attr, 0); err != nil {
			return fmt.Errorf("set scheduling of task %d: %w", tid, err)
		}
	}
	if s.CPUs != cpus {
		if err := unix.SchedSetaffinity(tid, &s.CPUs); err != nil {
			return fmt.Errorf("set CPUs of task %d: %w", tid, err)
		}
	}
	return nil
}

const ioprioWhoProcess = 1 // IOPRIO_WHO_PROCESS: one task

// IOPriority reads the priority of a task's input and output, ioprio_get(2);
// 0: it follows from the nice value.
func IOPriority(tid int) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(tid), 0)
	if errno != 0 {
		return 0, fmt.Errorf("read I/O priority of task %d: %w", tid, errno)
	}
	return int(n), nil
}

// SetIOPriority sets what IOPriority reads.
func SetIOPriority(tid, priority int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), uintptr(priority)); errno != 0 {
		return fmt.Errorf("set I/O priority of task %d: %w", tid, errno)
	}
	return nil
}

// CoredumpFilter reads /proc/PID/coredump_filter: which kinds of memory a core
// dump has.
func CoredumpFilter(pid int) (uint32, error) {
	b, err := readFile(coredumpFilterPath(pid))
	if err != nil {
		return 0, fmt.Errorf("read coredump filter: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse coredump filter of %d: %w", pid, err)
	}
	return uint32(n), nil
}

// SetCoredumpFilter writes /proc/PID/coredump_filter.
func SetCoredumpFilter(pid int, filter uint32) error {
	if err := os.WriteFile(coredumpFilterPath(pid), fmt.Appendf(nil, "%#x", filter), 0); err != nil {
		return fmt.Errorf("set coredump filter: %w", err)
	}
	return nil
}

func coredumpFilterPath(pid int) string { return fmt.Sprintf("/proc/%d/coredump_filter", pid) }

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
