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

// mounts lists the container's mounts: ours, unless the service has its own
// there, then the service's, each behind those it lies in.
func (b *Bundle) mounts() ([]specs.Mount, error) {
	var own []specs.Mount
	for _, m := range b.Service.Mounts {
		if m.Kind == host.MountTmpfs {
			own = append(own, tmpfs(m))
		}
	}
	for _, m := range b.Mounts {
		bind, err := m.mount()
		if err != nil {
			return nil, err
		}
		own = append(own, bind)
	}
	slices.SortStableFunc(own, func(x, y specs.Mount) int { return depth(x.Destination) - depth(y.Destination) })
	all := slices.DeleteFunc(b.systemMounts(), func(m specs.Mount) bool {
		return slices.ContainsFunc(own, func(o specs.Mount) bool { return hides(o.Destination, m.Destination) })
	})
	return append(all, own...), nil
}

func depth(path string) int { return strings.Count(filepath.Clean(path), "/") }

// hides reports whether a mount of the service takes the place of one of ours:
// at the same place, or all of /dev.
func hides(own, ours string) bool {
	own = filepath.Clean(own)
	return own == ours || own == "/dev" && strings.HasPrefix(ours, "/dev/")
}

// systemMounts are the fewest that programs expect: each is made again for
// every container.
func (b *Bundle) systemMounts() []specs.Mount {
	access := "ro"
	if b.Service.Privileged {
		access = "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		b.shm(),
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", access}},
		{Destination: InitPath, Type: "bind", Source: b.InitHost, Options: []string{"bind", "ro"}},
	}
}

// shm goes with the ipc namespace.
func (b *Bundle) shm() specs.Mount {
	if b.Service.IPCMode == "host" {
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}}
	}
	size := b.Service.ShmSizeBytes
	if size == 0 {
		size = defaultShmBytes
	}
	return specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", size)}}
}

// tmpfs is the service's; as with docker nothing in it is executed unless an
// option says so. The later of two options counts.
func tmpfs(m host.MountSpec) specs.Mount {
	options := []string{"noexec", "nosuid", "nodev"}
	if m.SizeBytes > 0 {
		options = append(options, fmt.Sprintf("size=%d", m.SizeBytes))
	}
	if m.Mode != 0 {
		options = append(options, fmt.Sprintf("mode=%o", m.Mode))
	}
	if m.UID != "" {
		options = append(options, "uid="+m.UID)
	}
	if m.GID != "" {
		options = append(options, "gid="+m.GID)
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: append(options, m.Options...)}
}

func (m BindMount) mount() (specs.Mount, error) {
	if _, err := os.Stat(m.Source); err != nil {
		return specs.Mount{}, fmt.Errorf("mount %s: %w", m.Target, err)
	}
	if !filepath.IsAbs(m.Target) {
		return specs.Mount{}, fmt.Errorf("mount %q: not absolute: %w", m.Target, host.ErrInvalid)
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
