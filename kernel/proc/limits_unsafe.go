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

// Limits reads all resource limits of a process, by RLIMIT_* number.
func Limits(pid int) ([LimitCount]Limit, error) {
	var limits [LimitCount]Limit
	for i := range limits {
		var r unix.Rlimit
		if err := unix.Prlimit(pid, i, nil, &r); err != nil {
			return limits, fmt.Errorf("read limit %d of process %d: %w", i, pid, err)
		}
		limits[i] = Limit{r.Cur, r.Max}
	}
	return limits, nil
}

// SetLimit sets one resource limit of a process.
func SetLimit(pid, resource int, l Limit) error {
	if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
		return fmt.Errorf("set limit %d of process %d: %w", resource, pid, err)
	}
	return nil
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
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// SetOOMScoreAdj writes /proc/PID/oom_score_adj.
func SetOOMScoreAdj(pid, value int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(value)), 0)
}
