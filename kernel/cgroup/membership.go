package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Membership is the set of cgroup directories that a process is in: one of
// each mounted v1 hierarchy and one of v2. It is plain data.
type Membership struct{ Dirs []string }

// OwnOf reads which cgroups a process is in that this process is not in: those
// that were made for it. None when it was started without.
func OwnOf(pid int) (Membership, error) {
	theirs, err := membershipOf(pid)
	if err != nil {
		return theirs, err
	}
	mine, err := membershipOf(os.Getpid())
	theirs.Dirs = slices.DeleteFunc(theirs.Dirs, func(dir string) bool { return slices.Contains(mine.Dirs, dir) })
	return theirs, err
}

func membershipOf(pid int) (Membership, error) {
	var m Membership
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return m, fmt.Errorf("read cgroups of %d: %w", pid, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return m, fmt.Errorf("read mounts: %w", err)
	}
	points := hierarchies(string(mounts))
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[2] == "/" {
			continue
		}
		// A hierarchy is named by any one of its controllers.
		name, _, _ := strings.Cut(fields[1], ",")
		if point, ok := points[name]; ok {
			m.Dirs = append(m.Dirs, filepath.Join(point, fields[2]))
		}
	}
	return m, nil
}

// hierarchies maps each v1 controller, or "name=...", to its mount point, and
// "" to that of v2.
func hierarchies(mountinfo string) map[string]string {
	points := map[string]string{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(place) < 5 || len(kind) < 3 || place[3] != "/" {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			points[""] = place[4]
		case "cgroup":
			for option := range strings.SplitSeq(kind[2], ",") {
				points[option] = place[4]
			}
		}
	}
	return points
}

// Add moves a process into all of them.
func (m Membership) Add(pid int) error {
	for _, dir := range m.Dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("add process %d to cgroup: %w", pid, err)
		}
	}
	return nil
}

// Pids lists the processes of the first of them; all have the same members if
// processes were only moved by Add and by forks. None without cgroups.
func (m Membership) Pids() ([]int, error) {
	if len(m.Dirs) == 0 {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(m.Dirs[0], "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	var pids []int
	for field := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
