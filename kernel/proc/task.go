package proc

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
)

// Tasks lists the threads of a process, ascending.
func Tasks(pid int) ([]int, error) { return numbers(fmt.Sprintf("/proc/%d/task", pid)) }

// Descriptors lists the open descriptors of a process, ascending.
func Descriptors(pid int) ([]int, error) { return numbers(fmt.Sprintf("/proc/%d/fd", pid)) }

func numbers(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			found = append(found, n)
		}
	}
	sort.Ints(found)
	return found, nil
}

// Children lists the children of all threads of a process. Needs
// CONFIG_PROC_CHILDREN.
func Children(pid int) ([]int, error) {
	tids, err := Tasks(pid)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, tid := range tids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		if err != nil {
			return nil, err
		}
		children, err := parseInts(string(b))
		if err != nil {
			return nil, fmt.Errorf("parse children of %d: %w", pid, err)
		}
		found = append(found, children...)
	}
	sort.Ints(found)
	return found, nil
}

// Tree lists pid and all its descendants, parents first.
func Tree(pid int) ([]int, error) {
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		children, err := Children(tree[i])
		if os.IsNotExist(err) && i > 0 {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list process tree: %w", err)
		}
		tree = append(tree, children...)
	}
	return tree, nil
}

// Exists reports whether the pid is in use, if only by a zombie.
func Exists(pid int) bool {
	_, err := os.Lstat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}

// Namespace returns the identity of one namespace of a process, such as
// "net:[4026531840]"; name is its file under ns.
func Namespace(pid int, name string) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
}

// Descriptor is one open descriptor of a process.
type Descriptor struct {
	FD          int
	Target      string // "socket:[123]", "/path", "anon_inode:[eventpoll]"
	CloseOnExec bool
	OffsetBytes int64
	Info        string // whole of fdinfo
}

// ReadDescriptor reads the link and fdinfo of one descriptor.
func ReadDescriptor(pid, fd int) (Descriptor, error) {
	d := Descriptor{FD: fd}
	var err error
	if d.Target, err = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil {
		return d, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return d, err
	}
	d.Info = string(b)
	for line := range strings.Lines(d.Info) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "flags":
			flags, err := strconv.ParseUint(value, 8, 64)
			if err != nil {
				return d, fmt.Errorf("parse fdinfo of %d: %w", fd, err)
			}
			d.CloseOnExec = flags&0o2000000 != 0
		case "pos":
			d.OffsetBytes, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	return d, nil
}
