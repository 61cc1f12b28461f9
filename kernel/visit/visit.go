// Package visit runs code inside the namespaces of another process, such as a
// container's init.
//
// It holds no state and may be called concurrently. It needs root.
package visit

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"torpor/kernel/thread"
)

// Place is what of a process is entered.
type Place int

// The places of Do, which may be combined.
const (
	Network Place = 1 << iota
	IPC
	Root // its root directory, with the mounts that the process sees there
)

// Do runs f with the namespaces and the root directory of process pid. The
// descriptors stay those of this process. In a foreign Root, absolute paths are
// the process's and this process's /proc is out of reach.
func Do(pid int, where Place, f func() error) error {
	return thread.Do(func() error {
		for _, ns := range []struct {
			place Place
			name  string
			flag  int
		}{{Network, "net", unix.CLONE_NEWNET}, {IPC, "ipc", unix.CLONE_NEWIPC}} {
			if where&ns.place == 0 {
				continue
			}
			if err := enter(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name), ns.flag); err != nil {
				return err
			}
		}
		if where&Root != 0 {
			if err := enterRoot(pid); err != nil {
				return fmt.Errorf("enter root directory of %d: %w", pid, err)
			}
		}
		return f()
	})
}

func enter(path string, flag int) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), flag); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return nil
}

// enterRoot gives the thread a root directory of its own.
func enterRoot(pid int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Chroot(fmt.Sprintf("/proc/%d/root", pid)); err != nil {
		return err
	}
	unix.Umask(0)
	return unix.Chdir("/")
}
