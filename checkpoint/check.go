package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"torpor/host"
	"torpor/kernel/proc"
)

// Check says whether a running tree could be dumped now, without touching it.
// What it finds is a *host.Refusal. A dump may still refuse: processes change,
// and some things are seen only in a stopped one.
func Check(pids []int) error {
	var reasons []string
	for _, pid := range pids {
		found, err := checkProcess(pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended meanwhile
		}
		if err != nil {
			return err
		}
		reasons = append(reasons, found...)
	}
	if len(reasons) > 0 {
		return &host.Refusal{Reasons: reasons}
	}
	return nil
}

func checkProcess(pid int) ([]string, error) {
	status, err := proc.ReadStatus(pid, pid)
	if err != nil {
		return nil, err
	}
	var reasons []string
	add := func(reason string) {
		if reason != "" {
			reasons = append(reasons, fmt.Sprintf("process %d (%s) %s", pid, status.Name, reason))
		}
	}
	switch status.State {
	case 'Z':
		add("is a zombie its parent has not reaped")
		return reasons, nil
	case 'T':
		add("is stopped")
	case 't':
		add("is being traced")
	}
	if status.Seccomp == 1 {
		add("is in strict seccomp mode")
	}
	fds, err := proc.Descriptors(pid)
	if err != nil {
		return nil, err
	}
	for _, fd := range fds {
		d, err := proc.ReadDescriptor(pid, fd)
		if err != nil {
			continue // closed meanwhile
		}
		if reason := unparkable(d); reason != "" {
			add(fmt.Sprintf("has %s (descriptor %d)", reason, fd))
		}
	}
	vmas, err := proc.Maps(pid) // without flags: smaps walks every page
	if err != nil {
		return nil, err
	}
	for i := range vmas {
		if reason := unsavable(&vmas[i]); reason != "" {
			add("maps " + reason)
		}
	}
	return reasons, nil
}
