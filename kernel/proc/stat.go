package proc

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Layout is where the kernel believes the parts of an address space to be; it
// is what PR_SET_MM_MAP takes, without brk, which only the process can tell.
type Layout struct {
	StartCode, EndCode, StartData, EndData, StartBrk Addr
	StartStack, ArgStart, ArgEnd, EnvStart, EnvEnd   Addr
}

// Stat is what /proc/PID/stat says beyond Status.
type Stat struct {
	Comm                   string
	State                  byte
	Flags                  uint64 // PF_* of the kernel
	StartTime              uint64 // clock ticks after boot
	UserTicks, SystemTicks uint64
	TTY                    int // device number of the controlling terminal, 0: none
	Layout                 Layout
}

// Alive reports whether a process exists and is not about to end: a killed one
// still takes a while to become a zombie.
func Alive(pid int) bool {
	const exiting = 4 // PF_EXITING
	stat, err := ReadStat(pid)
	if err != nil || stat.State == 'Z' || stat.State == 'X' || stat.Flags&exiting != 0 {
		return false
	}
	status, err := ReadStatus(pid, pid)
	return err == nil && (status.SigPending|status.SharedPending)&(1<<(unix.SIGKILL-1)) == 0
}

// ReadStat reads /proc/PID/stat.
func ReadStat(pid int) (*Stat, error) {
	b, err := readFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("read stat: %w", err)
	}
	return ParseStat(string(b))
}

// ParseStat parses the format of /proc/PID/stat. The command is in
// parentheses and may hold any byte, so fields are counted from the last one.
func ParseStat(text string) (*Stat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return nil, fmt.Errorf("parse stat: no command")
	}
	fields := strings.Fields(text[end+1:])
	const first = 3 // number, in proc(5), of the first field behind the command
	if len(fields) < 52-first+1 {
		return nil, fmt.Errorf("parse stat: %d fields behind the command", len(fields))
	}
	var failed error
	field := func(n int) uint64 {
		v, err := strconv.ParseUint(fields[n-first], 10, 64)
		if err != nil {
			failed = fmt.Errorf("parse stat: field %d: %w", n, err)
		}
		return v
	}
	s := &Stat{Comm: text[open+1 : end], State: fields[0][0], Flags: field(9), UserTicks: field(14), SystemTicks: field(15), StartTime: field(22)}
	tty, err := strconv.Atoi(fields[7-first])
	if err != nil {
		return nil, fmt.Errorf("parse stat: terminal: %w", err)
	}
	s.TTY = tty
	l := &s.Layout
	for n, to := range map[int]*Addr{
		26: &l.StartCode, 27: &l.EndCode, 28: &l.StartStack, 45: &l.StartData, 46: &l.EndData,
		47: &l.StartBrk, 48: &l.ArgStart, 49: &l.ArgEnd, 50: &l.EnvStart, 51: &l.EnvEnd,
	} {
		*to = Addr(field(n))
	}
	return s, failed
}
