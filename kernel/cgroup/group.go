package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"torpor/host"
)

// Mode says which version of cgroups has the controllers.
type Mode string

// The modes. Hybrid is version 1 with a version 2 hierarchy beside it that
// tracks processes only.
const (
	V1     Mode = "v1"
	V2     Mode = "v2"
	Hybrid Mode = "hybrid"
)

// ReadMode looks at what is mounted. None is host.ErrKernel.
func ReadMode() (Mode, error) {
	points, err := mounted()
	if err != nil {
		return "", err
	}
	return modeOf(points)
}

func modeOf(points map[string]string) (Mode, error) {
	_, unified := points[""]
	_, v1 := points["memory"]
	if !v1 {
		_, v1 = points["cpu"]
	}
	switch {
	case unified && v1:
		return Hybrid, nil
	case unified:
		return V2, nil
	case v1:
		return V1, nil
	}
	return "", fmt.Errorf("find cgroups: none is mounted (see: mount -t cgroup2 cgroup2 /sys/fs/cgroup): %w", host.ErrKernel)
}

func mounted() (map[string]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return hierarchies(string(b)), nil
}

// Group is one path in every hierarchy, such as /torpor/web-1. It exists where
// somebody, such as an OCI runtime, has made it.
type Group struct {
	dirs map[string]string // controller, "name=..." or "" for v2 -> directory that exists
}

// Open finds the directories of a path as OCI specs name it: absolute, from the
// root of each hierarchy. Errors: host.ErrNotFound when there is none.
func Open(name string) (*Group, error) {
	points, err := mounted()
	if err != nil {
		return nil, err
	}
	return open(points, name)
}

func open(points map[string]string, name string) (*Group, error) {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return nil, fmt.Errorf("open cgroup %q: %w", name, host.ErrInvalid)
	}
	g := &Group{dirs: map[string]string{}}
	for controller, point := range points {
		dir := filepath.Join(point, clean)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			g.dirs[controller] = dir
		}
	}
	if len(g.dirs) == 0 {
		return nil, fmt.Errorf("open cgroup %s: %w", clean, host.ErrNotFound)
	}
	return g, nil
}

// Membership is the group's directories, for processes to be added to.
func (g *Group) Membership() Membership {
	return Membership{Dirs: slices.Compact(slices.Sorted(maps.Values(g.dirs)))}
}

// Pids lists the group's processes, those of groups inside it included. None
// when it was removed meanwhile.
func (g *Group) Pids() ([]int, error) {
	m := g.Membership()
	if len(m.Dirs) == 0 {
		return nil, nil
	}
	var pids []int
	err := filepath.WalkDir(m.Dirs[0], func(dir string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || !d.IsDir() {
			return err
		}
		more, err := Membership{Dirs: []string{dir}}.Pids()
		pids = append(pids, more...)
		return err
	})
	return pids, err
}

// AddPID moves a process into the group, in every hierarchy.
func (g *Group) AddPID(pid int) error { return g.Membership().Add(pid) }

// CPUUsage is the time that processors spent on the group since it was made.
// Errors: host.ErrKernel when nothing accounts it.
func (g *Group) CPUUsage() (time.Duration, error) {
	if dir, ok := g.dirs["cpuacct"]; ok {
		n, err := readNumber(filepath.Join(dir, "cpuacct.usage"))
		return time.Duration(n), err
	}
	if dir, ok := g.dirs[""]; ok {
		b, err := os.ReadFile(filepath.Join(dir, "cpu.stat")) // there without the controller too
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		us, err := statField(string(b), "usage_usec")
		return time.Duration(us) * time.Microsecond, err
	}
	return 0, fmt.Errorf("read processor time: no cgroup accounts it: %w", host.ErrKernel)
}

// MemoryBytes is the memory charged to the group now, page cache included.
// Errors: host.ErrKernel when nothing accounts it.
func (g *Group) MemoryBytes() (int64, error) {
	if dir, ok := g.dirs["memory"]; ok {
		return readNumber(filepath.Join(dir, "memory.usage_in_bytes"))
	}
	if dir, ok := g.dirs[""]; ok {
		n, err := readNumber(filepath.Join(dir, "memory.current"))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
	}
	return 0, fmt.Errorf("read memory: no cgroup accounts it: %w", host.ErrKernel)
}

// MemoryLimit is the most memory the group may use; 0 means no limit of its
// own, also where there is no memory controller.
func (g *Group) MemoryLimit() (int64, error) {
	file := ""
	if dir, ok := g.dirs["memory"]; ok {
		file = filepath.Join(dir, "memory.limit_in_bytes")
	} else if dir, ok := g.dirs[""]; ok {
		file = filepath.Join(dir, "memory.max")
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(b)) == "max" {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read memory limit: %w", err)
	}
	n, err := parseNumber(string(b))
	if n >= 1<<62 { // version 1 says the largest number of pages
		return 0, err
	}
	return n, err
}

// Remove removes the group and those inside it. Processes in it are EBUSY;
// what is gone is not an error.
func (g *Group) Remove() error {
	var errs []error
	for _, dir := range g.Membership().Dirs {
		errs = append(errs, removeTree(dir))
	}
	return errors.Join(errs...)
}

// removeTree removes directories, the inner ones first; files in them go with
// them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}

func readNumber(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read cgroup: %w", err)
	}
	return parseNumber(string(b))
}

func parseNumber(text string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read cgroup: %w", err)
	}
	return n, nil
}

// statField finds one of a file's "name number" lines.
func statField(content, name string) (int64, error) {
	for line := range strings.Lines(content) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return parseNumber(value)
		}
	}
	return 0, fmt.Errorf("read cgroup: no %s: %w", name, host.ErrKernel)
}
