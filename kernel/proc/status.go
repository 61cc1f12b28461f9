package proc

import (
	"fmt"
	"strconv"
	"strings"
)

// Status is what /proc/PID/status says of one task.
type Status struct {
	Name                              string
	State                             byte // R, S, D, T, t, Z, X
	TGID, PPID                        int
	NSPIDs                            []int // pid in each namespace, outermost first
	NSPGIDs                           []int
	NSSIDs                            []int
	UIDs, GIDs                        [4]uint32 // real, effective, saved, file system
	Groups                            []uint32
	Umask                             uint32
	Caps                              Capabilities
	NoNewPrivs                        bool
	Seccomp                           int // 0 off, 1 strict, 2 filter
	Threads                           int
	SigPending, SharedPending         uint64
	SigBlocked, SigIgnored, SigCaught uint64
	CPUsAllowed                       string
	LockedBytes                       uint64 // VmLck: mappings that are locked, touched or not
}

// Capabilities are the five capability sets of a task; bit n is capability n.
type Capabilities struct {
	Inheritable, Permitted, Effective, Bounding, Ambient uint64
}

// ReadStatus reads /proc/PID/task/TID/status; tid may equal pid.
func ReadStatus(pid, tid int) (*Status, error) {
	b, err := readFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
	if err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	return ParseStatus(string(b))
}

// ParseStatus parses the format of /proc/PID/status.
func ParseStatus(text string) (*Status, error) {
	s := new(Status)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		if err := s.set(key, strings.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("parse status: %s: %w", key, err)
		}
	}
	if s.TGID == 0 || len(s.NSPIDs) == 0 || len(s.NSPGIDs) == 0 || len(s.NSSIDs) == 0 {
		return nil, fmt.Errorf("parse status: no pid")
	}
	return s, nil
}

func (s *Status) set(key, value string) error {
	var err error
	switch key {
	case "Name":
		s.Name = value
	case "State":
		if value != "" {
			s.State = value[0]
		}
	case "Tgid":
		s.TGID, err = strconv.Atoi(value)
	case "PPid":
		s.PPID, err = strconv.Atoi(value)
	case "NSpid":
		s.NSPIDs, err = parseInts(value)
	case "NSpgid":
		s.NSPGIDs, err = parseInts(value)
	case "NSsid":
		s.NSSIDs, err = parseInts(value)
	case "Threads":
		s.Threads, err = strconv.Atoi(value)
	case "VmLck":
		_, err = fmt.Sscanf(value, "%d kB", &s.LockedBytes)
		s.LockedBytes <<= 10
	case "Cpus_allowed_list":
		s.CPUsAllowed = value
	default:
		return s.setSecurity(key, value)
	}
	return err
}

func (s *Status) setSecurity(key, value string) error {
	var err error
	switch key {
	case "Uid":
		s.UIDs, err = parseIDs(value)
	case "Gid":
		s.GIDs, err = parseIDs(value)
	case "Groups":
		s.Groups, err = parseGroups(value)
	case "Umask":
		var u uint64
		u, err = strconv.ParseUint(value, 8, 32)
		s.Umask = uint32(u)
	case "NoNewPrivs":
		s.NoNewPrivs = value == "1"
	case "Seccomp":
		s.Seccomp, err = strconv.Atoi(value)
	default:
		if field := s.hexField(key); field != nil {
			*field, err = strconv.ParseUint(value, 16, 64)
		}
	}
	return err
}

func (s *Status) hexField(key string) *uint64 {
	switch key {
	case "CapInh":
		return &s.Caps.Inheritable
	case "CapPrm":
		return &s.Caps.Permitted
	case "CapEff":
		return &s.Caps.Effective
	case "CapBnd":
		return &s.Caps.Bounding
	case "CapAmb":
		return &s.Caps.Ambient
	case "SigPnd":
		return &s.SigPending
	case "ShdPnd":
		return &s.SharedPending
	case "SigBlk":
		return &s.SigBlocked
	case "SigIgn":
		return &s.SigIgnored
	case "SigCgt":
		return &s.SigCaught
	}
	return nil
}

func parseInts(value string) ([]int, error) {
	var ints []int
	for _, f := range strings.Fields(value) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		ints = append(ints, n)
	}
	return ints, nil
}

func parseGroups(value string) ([]uint32, error) {
	var groups []uint32
	for _, f := range strings.Fields(value) {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, err
		}
		groups = append(groups, uint32(n))
	}
	return groups, nil
}

func parseIDs(value string) ([4]uint32, error) {
	var ids [4]uint32
	groups, err := parseGroups(value)
	if err == nil && len(groups) != 4 {
		err = fmt.Errorf("%d ids, want 4", len(groups))
	}
	copy(ids[:], groups)
	return ids, err
}
