package checkpoint

import (
	"fmt"
	"strings"

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
	var reasons []string
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
