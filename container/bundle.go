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
	Env        []string // NAME=value
	WorkingDir string   // "" means /
	User       string   // as in ServiceSpec
	Hostname   string
	NetNS      string // path of the network namespace; "" is the host's
	Mounts     []BindMount
	CgroupPath string // from the root of each hierarchy
}

// BindMount is a file or directory of the host in the container.
type BindMount struct {
	Source, Target string
	ReadOnly       bool
	Propagation    string // "" means rprivate
}

// Write makes DIR/config.json.
func (b *Bundle) Write(dir string) error {
	spec, err := b.Spec()
	if err != nil {
		return err
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

// Spec is the bundle's content as the OCI runtime specification 1.0.2 has it,
// which every runtime in use knows. Errors: host.ErrInvalid and
// host.ErrUnsupported, naming what of the service it is.
func (b *Bundle) Spec() (*specs.Spec, error) {
	spec, err := b.spec()
	if err != nil {
		return nil, fmt.Errorf("make bundle of %s: %w", b.ID, err)
	}
	return spec, nil
}

func (b *Bundle) spec() (*specs.Spec, error) {
	set, err := capabilities(&b.Service)
	if err != nil {
		return nil, err
	}
	options, err := readSecurity(b.Service.SecurityOpt)
	if err != nil {
		return nil, err
	}
	process, err := b.process(set, &options)
	if err != nil {
		return nil, err
	}
	mounts, err := b.mounts()
	if err != nil {
		return nil, err
	}
	linux, err := b.linux(set, &options)
	if err != nil {
		return nil, err
	}
	return &specs.Spec{
		Version:     "1.0.2",
		Process:     process,
		Root:        &specs.Root{Path: b.RootFS, Readonly: b.Service.ReadOnly},
		Hostname:    b.Hostname,
		Mounts:      mounts,
		Annotations: b.Service.Annotations,
		Linux:       linux,
	}, nil
}

func (b *Bundle) process(set capabilitySet, options *security) (*specs.Process, error) {
	user, err := ResolveUser(b.RootFS, b.User, b.Service.GroupAdd)
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
		Capabilities:    set.spec(user.UID),
		Rlimits:         limits,
		NoNewPrivileges: options.noNewPrivileges,
		ApparmorProfile: options.appArmor,
		OOMScoreAdj:     &b.Service.OOMScoreAdj, // always: else it is the daemon's
	}
	if process.Cwd == "" {
		process.Cwd = "/"
	}
	if !filepath.IsAbs(process.Cwd) {
		return nil, fmt.Errorf("working directory %q: not absolute: %w", process.Cwd, host.ErrInvalid)
	}
	return process, nil
}

// limitNames are the limits of setrlimit(2), lower case without RLIMIT_.
var limitNames = strings.Fields("as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack")

// rlimits translates ulimits; the runtime knows them as RLIMIT_NOFILE.
func rlimits(ulimits map[string]host.Ulimit) ([]specs.POSIXRlimit, error) {
	var limits []specs.POSIXRlimit
	for _, name := range slices.Sorted(maps.Keys(ulimits)) {
		u := ulimits[name]
		if !slices.Contains(limitNames, name) {
			return nil, fmt.Errorf("ulimit %q: not one of %s: %w", name, strings.Join(limitNames, ", "), host.ErrInvalid)
		}
		soft, hard := limit(u.Soft), limit(u.Hard)
		if soft > hard {
			return nil, fmt.Errorf("ulimit %s: soft %d is above hard %d: %w", name, u.Soft, u.Hard, host.ErrInvalid)
		}
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard})
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
func (b *Bundle) linux(set capabilitySet, options *security) (*specs.Linux, error) {
	l := &specs.Linux{
		CgroupsPath:       b.CgroupPath,
		Sysctl:            b.sysctls(),
		Namespaces:        b.namespaces(),
		Resources:         b.resources(),
		RootfsPropagation: b.propagation(),
	}
	if b.Service.Privileged {
		l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		if err := b.devices(l); err != nil {
			return nil, err
		}
		return l, b.hostDevices(l)
	}
	if !options.openPaths {
		l.MaskedPaths, l.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	if err := b.devices(l); err != nil {
		return nil, err
	}
	var err error
	l.Seccomp, err = options.filter(set)
	return l, err
}

func (b *Bundle) namespaces() []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace}}
	if b.Service.PIDMode != "host" {
		all = append(all, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if b.Service.IPCMode != "host" {
		all = append(all, specs.LinuxNamespace{Type: specs.IPCNamespace})
	}
	if b.NetNS != "" {
		all = append(all, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: b.NetNS})
	}
	return all
}

// sysctls are the service's, over those that let any user listen on low ports
// and ping, as docker has it.
func (b *Bundle) sysctls() map[string]string {
	all := map[string]string{}
	if b.NetNS != "" {
		all["net.ipv4.ip_unprivileged_port_start"] = "0"
		all["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	if b.Service.DomainName != "" {
		all["kernel.domainname"] = b.Service.DomainName
	}
	maps.Copy(all, b.Service.Sysctls)
	return all
}

// propagation of the root mount must be as wide as that of any mount.
func (b *Bundle) propagation() string {
	widest := ""
	for _, m := range b.Mounts {
		switch {
		case strings.HasSuffix(m.Propagation, "shared"):
			return "rshared"
		case strings.HasSuffix(m.Propagation, "slave"):
			widest = "rslave"
		}
	}
	return widest
}

// resources are the cgroup's limits; which version of cgroups has them is up to
// the runtime.
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
