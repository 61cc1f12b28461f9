package feature

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"torpor/kernel/mount"
	"torpor/kernel/thread"
)

var spaceProbes = []probe{
	{Feature{"overlay", true, "stacking a service's files on its image (overlayfs, layers one by one)",
		"no service can be started", newKernel + "; " + outside}, tryOverlay},
	{Feature{"cgroup", true, "limiting and finding the processes of a service (cgroup v2, or v1)",
		"no service can be started", "mount cgroup2 at /sys/fs/cgroup, as systemd does"}, tryCgroup},
	{Feature{"user-namespaces", false, "mapping a container's users to others of the host",
		"root in a container is root of the host, held by capabilities and seccomp only", "set the sysctl user.max_user_namespaces above 0"}, tryUserNamespace},
}

// tryOverlay stacks directories of a tmpfs in a mount namespace of its own.
func tryOverlay(*machine) (string, error) {
	dir, err := os.MkdirTemp("", "torpor-check")
	if err != nil {
		return "", err
	}
	err = thread.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := mount.Private("/"); err != nil {
			return err
		}
		if err := mount.Tmpfs(dir, 1<<20, 0o700); err != nil {
			return err
		}
		return errors.Join(stack(dir), mount.Detach(dir))
	})
	return "", errors.Join(err, os.Remove(dir))
}

func stack(dir string) error {
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"one", "two", "upper", "work", "target"} {
		if err := os.Mkdir(path(name), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path("two/file"), []byte("lower"), 0o600); err != nil {
		return err
	}
	o := mount.Overlay{Lower: []string{path("one"), path("two")}, Upper: path("upper"), Work: path("work")}
	if err := o.Mount(path("target")); err != nil {
		return err
	}
	err := os.WriteFile(path("target/file"), []byte("upper"), 0o600)
	if b, readErr := os.ReadFile(path("upper/file")); err == nil && string(b) != "upper" {
		err = errors.Join(fmt.Errorf("write through overlay: upper file holds %q", b), readErr)
	}
	return errors.Join(err, mount.Detach(path("target")))
}

// tryCgroup makes a group where memory is controlled.
func tryCgroup(*machine) (string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dir, detail := memoryHierarchy(string(info), func(dir string) []string {
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		return fields(b)
	})
	if dir == "" {
		return "", fmt.Errorf("find cgroups: no hierarchy controls memory (%s)", detail)
	}
	group := filepath.Join(dir, fmt.Sprintf("torpor-check-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		return detail, err
	}
	return detail, os.Remove(group)
}

// memoryHierarchy returns where the hierarchy that controls memory is mounted,
// and what hierarchies there are.
func memoryHierarchy(mountinfo string, controllers func(dir string) []string) (dir, detail string) {
	var v1, v2 []string
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(place) < 5 || len(kind) < 3 {
			continue
		}
		var names []string
		switch kind[0] {
		case "cgroup2":
			names = controllers(place[4])
			v2 = append(v2, names...)
		case "cgroup":
			names = controlled(kind[2])
			v1 = append(v1, names...)
		}
		if slices.Contains(names, "memory") {
			dir = place[4]
		}
	}
	switch {
	case len(v1) > 0:
		return dir, "v1: " + strings.Join(v1, " ")
	case len(v2) > 0:
		return dir, "v2: " + strings.Join(v2, " ")
	}
	return dir, "none is mounted"
}

// controlled picks the controllers from the options of a v1 mount.
func controlled(options string) []string {
	return slices.DeleteFunc(strings.Split(options, ","), func(o string) bool {
		return slices.Contains([]string{"rw", "ro", "xattr", "clone_children"}, o) || strings.Contains(o, "=")
	})
}

func tryUserNamespace(*machine) (string, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		Ptrace:      true, // it stops before its first instruction
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return "", thread.Do(func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		err := cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		return err
	})
}
