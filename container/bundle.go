package container

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// InitPath is where the init lies inside every container.
const InitPath = "/.torpor/init"

// Bundle is all that a container is made from. Service fields that name
// things of the image or the host are resolved in the fields beside it.
type Bundle struct {
	ID         host.ContainerID
	Service    host.ServiceSpec
	RootFS     string // mounted root file system
	InitHost   string // the init's executable on the host
	Args       []string
	Env        []string
	WorkingDir string
	User       string
	Hostname   string
	NetNS      string // path of the network namespace; "" with network_mode host
	Mounts     []BindMount
	CgroupPath string
}

// BindMount is a file or directory of the host in the container.
type BindMount struct {
	Source, Target string
	ReadOnly       bool
	Propagation    string // "" means rprivate
}

// Write makes DIR/config.json.
func (b *Bundle) Write(dir string) error {
	spec, err := b.spec()
	if err != nil {
		return fmt.Errorf("make bundle of %s: %w", b.ID, err)
	}
	content, err := json.MarshalIndent(spec, "", " ")
	if err != nil {
		return fmt.Errorf("make bundle of %s: %w", b.ID, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), content, 0o600); err != nil {
		return fmt.Errorf("make bundle of %s: %w", b.ID, err)
	}
	return nil
}

func (b *Bundle) spec() (*specs.Spec, error) {
	process, err := b.process()
	if err != nil {
		return nil, err
	}
	mounts, err := b.mounts()
	if err != nil {
		return nil, err
	}
	linux, err := b.linux()
	if err != nil {
		return nil, err
	}
	return &specs.Spec{
		Version:  "1.0.2",
		Process:  process,
		Root:     &specs.Root{Path: b.RootFS, Readonly: b.Service.ReadOnly},
		Hostname: b.Hostname,
		Mounts:   mounts,
		Linux:    linux,
	}, nil
}

func (b *Bundle) process() (*specs.Process, error) {
	user, err := ResolveUser(b.RootFS, b.User, b.Service.GroupAdd)
	if err != nil {
		return nil, err
	}
	capabilities, err := capabilities(&b.Service)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(b.Service.Ulimits)
	if err != nil {
		return nil, err
	}
	process := &specs.Process{
		Terminal:        b.Service.TTY,
		Args:            append([]string{InitPath}, b.Args...),
		Env:             b.Env,
		Cwd:             b.WorkingDir,
		User:            *user,
		Capabilities:    capabilities,
		Rlimits:         limits,
		NoNewPrivileges: slices.ContainsFunc(b.Service.SecurityOpt, isNoNewPrivileges),
	}
	if process.Cwd == "" {
		process.Cwd = "/"
	}
	if b.Service.OOMScoreAdj != 0 {
		process.OOMScoreAdj = &b.Service.OOMScoreAdj
	}
	return process, nil
}

func isNoNewPrivileges(option string) bool {
	return option == "no-new-privileges" || option == "no-new-privileges:true" || option == "no-new-privileges=true"
}

// rlimits translates ulimits; the runtime knows them as RLIMIT_NOFILE.
func rlimits(ulimits map[string]host.Ulimit) ([]specs.POSIXRlimit, error) {
	var limits []specs.POSIXRlimit
	for _, name := range slices.Sorted(maps.Keys(ulimits)) {
		u := ulimits[name]
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: limit(u.Soft), Hard: limit(u.Hard)})
	}
	return limits, nil
}

func limit(n int64) uint64 {
	if n < 0 {
		return ^uint64(0)
	}
	return uint64(n)
}

// linux is what belongs to Linux: namespaces, devices, cgroup, seccomp.
func (b *Bundle) linux() (*specs.Linux, error) {
	s := &b.Service
	l := &specs.Linux{
		CgroupsPath: b.CgroupPath,
		Sysctl:      s.Sysctls,
		Namespaces:  b.namespaces(),
		Resources:   b.resources(),
	}
	if s.Privileged {
		l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return l, b.devices(l)
	}
	l.MaskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	l.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	if err := b.devices(l); err != nil {
		return nil, err
	}
	profile, err := b.seccomp()
	l.Seccomp = profile
	return l, err
}

func (b *Bundle) namespaces() []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace}}
	if b.Service.IPCMode != "host" {
		all = append(all, specs.LinuxNamespace{Type: specs.IPCNamespace})
	}
	if b.NetNS != "" {
		all = append(all, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: b.NetNS})
	}
	return all
}

func (b *Bundle) resources() *specs.LinuxResources {
	r, out := b.Service.Resources, &specs.LinuxResources{}
	if r.MemoryBytes > 0 || r.MemoryReservationBytes > 0 || r.MemorySwapBytes != 0 {
		out.Memory = &specs.LinuxMemory{Limit: positive(r.MemoryBytes), Reservation: positive(r.MemoryReservationBytes)}
		if r.MemorySwapBytes != 0 {
			out.Memory.Swap = &r.MemorySwapBytes
		}
	}
	if r.CPUs > 0 || r.CPUShares > 0 || r.CPUSet != "" {
		out.CPU = &specs.LinuxCPU{Cpus: r.CPUSet}
		if r.CPUs > 0 {
			period, quota := uint64(100000), int64(r.CPUs*100000)
			out.CPU.Period, out.CPU.Quota = &period, &quota
		}
		if r.CPUShares > 0 {
			shares := uint64(r.CPUShares)
			out.CPU.Shares = &shares
		}
	}
	if r.PidsMax > 0 {
		out.Pids = &specs.LinuxPids{Limit: &r.PidsMax}
	}
	return out
}

func positive(n int64) *int64 {
	if n <= 0 {
		return nil
	}
	return &n
}
