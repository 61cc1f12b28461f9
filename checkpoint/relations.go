package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"torpor/checkpoint/object"
	"torpor/host"
	"torpor/kernel/proc"
)

// relations fills in who is whose parent and refuses trees whose sessions and
// groups can not be made again in the order of forks.
func (d *dump) relations() error {
	inner := map[int]int{} // outer pid -> inner
	byPID := map[int]*ProcessSpec{}
	for i, p := range d.tree.processes {
		inner[p.pid] = d.spec.Processes[i].PID
		byPID[d.spec.Processes[i].PID] = &d.spec.Processes[i]
	}
	if d.OwnSession {
		ownSession(d.spec.Processes, byPID)
	}
	reasons, err := d.separate()
	if err != nil {
		return err
	}
	for i, p := range d.tree.processes {
		spec := &d.spec.Processes[i]
		spec.Parent = inner[p.tasks[0].status.PPID]
		if reason := checkSession(spec, byPID); reason != "" {
			reasons = append(reasons, reason)
		}
	}
	if len(reasons) > 0 {
		return &host.Refusal{Reasons: reasons}
	}
	return nil
}

// separate names what the script can not rebuild: processes in namespaces of
// their own, and tasks that share less or more than threads and processes do.
func (d *dump) separate() ([]string, error) {
	var reasons []string
	home, err := proc.NamespaceIDs(d.Holder.PID)
	if err != nil {
		return nil, err
	}
	for i, p := range d.tree.processes {
		name := fmt.Sprintf("process %d (%s)", p.pid, p.tasks[0].status.Name)
		ids, err := proc.NamespaceIDs(p.pid)
		if err != nil {
			return nil, err
		}
		for n := range ids {
			if ids[n] != home[n] && !(timeNamespaces[proc.NamespaceNames[n]] && ids[n] == d.timeNS) {
				reasons = append(reasons, fmt.Sprintf("%s is in a %s namespace of its own", name, proc.NamespaceNames[n]))
			}
		}
		if spec := &d.spec.Processes[i]; spec.terminal && spec.Session == spec.PID {
			reasons = append(reasons, name+" controls a terminal, which would hang up")
		}
		for _, t := range p.tasks[1:] {
			for _, what := range []proc.Resource{proc.ResourceDescriptors, proc.ResourceDirectories} {
				if shared, ok, err := proc.Share(p.pid, t.tid, what); err != nil {
					return nil, err
				} else if ok && !shared {
					reasons = append(reasons, fmt.Sprintf("%s has a thread %d with descriptors or directories of its own", name, t.tid))
				}
			}
		}
		if reason, err := d.sharesWithAnother(i); err != nil {
			return nil, err
		} else if reason != "" {
			reasons = append(reasons, name+reason)
		}
	}
	return reasons, nil
}

// timeNamespaces may be the tree's own: a tree that outlived its machine's boot
// has one, so that clocks never go back.
var timeNamespaces = map[string]bool{"time": true, "time_for_children": true}

// parkTime parks the tree's time namespace, if it has one of its own.
func (d *dump) parkTime() error {
	path := func(pid int) string { return fmt.Sprintf("/proc/%d/ns/time", pid) }
	first := d.tree.processes[0].pid
	var own, home syscall.Stat_t
	err := syscall.Stat(path(first), &own)
	if errors.Is(err, syscall.ENOENT) {
		return nil // this kernel has none
	}
	if err = errors.Join(err, syscall.Stat(path(d.Holder.PID), &home)); err != nil {
		return fmt.Errorf("look at time namespace: %w", err)
	}
	d.timeNS = own.Ino
	if d.ready != nil || own.Ino == home.Ino {
		return nil
	}
	slot, err := d.park.path(path(first), os.O_RDONLY, object.UseDescriptor)
	d.spec.Time = &slot
	return err
}

// sharesWithAnother says whether a process has something in common with an
// earlier one of the tree.
func (d *dump) sharesWithAnother(i int) (string, error) {
	pid := d.tree.processes[i].pid
	for _, other := range d.tree.processes[:i] {
		for _, what := range []proc.Resource{proc.ResourceMemory, proc.ResourceDescriptors, proc.ResourceDirectories, proc.ResourceHandlers} {
			if shared, _, err := proc.Share(pid, other.pid, what); err != nil {
				return "", err
			} else if shared {
				return fmt.Sprintf(" shares memory, descriptors, directories or signal handlers with process %d", other.pid), nil
			}
		}
	}
	return "", nil
}

// connect fills in what timers and descriptors say about tasks and each other.
func (d *dump) connect() error {
	inner := map[int32]int32{}
	for i, p := range d.tree.processes {
		for j := range p.tasks {
			inner[int32(p.tasks[j].tid)] = int32(d.spec.Processes[i].Threads[j].TID)
		}
	}
	for i := range d.spec.Processes {
		for j := range d.spec.Processes[i].Timers {
			t := &d.spec.Processes[i].Timers[j]
			t.TID = int(inner[int32(t.TID)])
		}
		descriptors := d.spec.Processes[i].Descriptors
		for j := range descriptors {
			fd := &descriptors[j]
			if fd.Owner.ID = inner[fd.Owner.ID]; fd.Owner.ID == 0 {
				fd.Owner = proc.Owner{}
			}
		}
		if err := d.signalEvents(descriptors); err != nil {
			return err
		}
	}
	return d.oneOwner()
}

// ownSession gives the first process, and those that share its session or
// group, one of its own where the leader is not in the tree.
func ownSession(processes []ProcessSpec, byPID map[int]*ProcessSpec) {
	first := &processes[0]
	session, group := first.Session, first.Group
	for i := range processes {
		if byPID[session] == nil && processes[i].Session == session {
			processes[i].Session = first.PID
		}
		if byPID[group] == nil && processes[i].Group == group {
			processes[i].Group = first.PID
		}
	}
	if first.Session == first.PID {
		first.Group = first.PID
	}
}

// checkSession returns why a process's session or group can not be made again.
func checkSession(p *ProcessSpec, byPID map[int]*ProcessSpec) string {
	name := p.Threads[0].Comm
	parent := byPID[p.Parent]
	switch {
	case p.Session == p.PID:
		return ""
	case parent == nil:
		return fmt.Sprintf("process %d (%s) is in session %d, whose leader is not its ancestor here", p.PID, name, p.Session)
	case parent.Session != p.Session:
		return fmt.Sprintf("process %d (%s) is in session %d, its parent in %d", p.PID, name, p.Session, parent.Session)
	}
	if _, ok := byPID[p.Group]; !ok {
		return fmt.Sprintf("process %d (%s) is in process group %d, whose leader is gone", p.PID, name, p.Group)
	}
	return ""
}

// refuse names the descriptors that neither parking nor a script can carry.
func (d *dump) refuse() error {
	var reasons []string
	for i, p := range d.tree.processes {
		for _, fd := range d.spec.Processes[i].Descriptors {
			if reason := unparkable(fd.info); reason != "" {
				reasons = append(reasons, fmt.Sprintf("process %d (%s) has %s (descriptor %d)", p.pid, p.tasks[0].status.Name, reason, fd.FD))
			}
		}
	}
	if len(reasons) > 0 {
		return &host.Refusal{Reasons: reasons}
	}
	return nil
}

// unparkable says what is special about a descriptor that is bound to the
// process that opened it.
func unparkable(fd proc.Descriptor) string {
	if fd.RecordLock {
		// It is gone with the process. flock(2) and open-file-description
		// locks are parked.
		return "a record lock on " + fd.Target
	}
	switch fd.Target {
	case "anon_inode:[io_uring]":
		return "an io_uring"
	case "anon_inode:[userfaultfd]":
		return "a userfaultfd"
	case "anon_inode:[perf_event]":
		return "a performance counter"
	case "anon_inode:seccomp notify":
		return "a seccomp listener"
	case "anon_inode:[pidfd]", "pidfd:[":
		return "a pidfd"
	}
	switch {
	case strings.HasPrefix(fd.Target, "pidfd:"):
		return "a pidfd"
	case strings.HasPrefix(fd.Target, "/dev/nvidia"), strings.HasPrefix(fd.Target, "/dev/dri/"), strings.HasPrefix(fd.Target, "/dev/kfd"),
		fd.Target == "/dev/kvm", strings.HasPrefix(fd.Target, "/dev/infiniband"), strings.HasPrefix(fd.Target, "/dev/vfio"):
		return "the device " + fd.Target
	}
	return ""
}

// ContainerTree lists the processes below a container's init, parents first.
func ContainerTree(initPID int) func() ([]int, error) {
	return func() ([]int, error) {
		tree, err := proc.Tree(initPID)
		if err != nil {
			return nil, err
		}
		return tree[1:], nil
	}
}
