package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// defaultShmBytes is what docker gives /dev/shm.
const defaultShmBytes = 64 << 20

// mounts lists the container's mounts, fewest that programs expect: each is
// made again for every container.
func (b *Bundle) mounts() ([]specs.Mount, error) {
	shm := b.Service.ShmSizeBytes
	if shm == 0 {
		shm = defaultShmBytes
	}
	sys := []string{"nosuid", "noexec", "nodev", "ro"}
	if b.Service.Privileged {
		sys[3] = "rw"
	}
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", sys[3]}},
		{Destination: InitPath, Type: "bind", Source: b.InitHost, Options: []string{"bind", "ro"}},
	}
	for _, m := range b.Service.Mounts {
		if m.Kind == host.MountTmpfs {
			all = append(all, tmpfs(m))
		}
	}
	for _, m := range b.Mounts {
		bind, err := m.mount()
		if err != nil {
			return nil, err
		}
		all = append(all, bind)
	}
	// A mount below another comes after it.
	slices.SortStableFunc(all[7:], func(x, y specs.Mount) int {
		return strings.Count(filepath.Clean(x.Destination), "/") - strings.Count(filepath.Clean(y.Destination), "/")
	})
	return all, nil
}

func tmpfs(m host.MountSpec) specs.Mount {
	options := []string{"nosuid", "nodev"}
	if m.SizeBytes > 0 {
		options = append(options, fmt.Sprintf("size=%d", m.SizeBytes))
	}
	if m.Mode != 0 {
		options = append(options, fmt.Sprintf("mode=%o", m.Mode))
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: options}
}

func (m BindMount) mount() (specs.Mount, error) {
	if _, err := os.Stat(m.Source); err != nil {
		return specs.Mount{}, fmt.Errorf("mount %s: %w", m.Target, err)
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = "rprivate"
	}
	options := []string{"rbind", propagation}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: options}, nil
}
