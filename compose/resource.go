package compose

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"torpor/host"
)

// resources converts limits. The short keys and deploy.resources mean the
// same; compose-go refuses a file where they differ.
func (c *converter) resources(s types.ServiceConfig, spec *host.ServiceSpec) {
	r := host.Resources{
		MemoryBytes:            c.bytes(s, "mem_limit", s.MemLimit),
		MemoryReservationBytes: c.bytes(s, "mem_reservation", s.MemReservation),
		MemorySwapBytes:        int64(s.MemSwapLimit),
		CPUs:                   exact(s.CPUS),
		CPUShares:              s.CPUShares,
		CPUSet:                 s.CPUSet,
		PidsMax:                s.PidsLimit,
	}
	if s.CPUQuota > 0 && r.CPUs == 0 {
		period := s.CPUPeriod
		if period <= 0 {
			period = 100_000 // the kernel's, in microseconds
		}
		r.CPUs = exact(float32(float64(s.CPUQuota) / float64(period)))
	}
	if s.Deploy != nil {
		c.deployResources(s.Deploy.Resources, &r)
	}
	if r.PidsMax < 0 {
		r.PidsMax = 0
	}
	c.checkResources(s.Name, r)
	spec.Resources = r
	spec.OOMScoreAdj = int(s.OomScoreAdj)
	if s.OomScoreAdj < -1000 || s.OomScoreAdj > 1000 {
		c.invalid(c.key("services", s.Name, "oom_score_adj"), "%d: want -1000 to 1000", s.OomScoreAdj)
	}
}

// deployResources fills what the short keys left. A reservation of CPUs
// becomes a weight: that is what a single host can promise.
func (c *converter) deployResources(d types.Resources, r *host.Resources) {
	if l := d.Limits; l != nil {
		setUnlessZero(&r.MemoryBytes, int64(l.MemoryBytes))
		setUnlessZero(&r.CPUs, exact(l.NanoCPUs.Value()))
		setUnlessZero(&r.PidsMax, l.Pids)
	}
	if v := d.Reservations; v != nil {
		setUnlessZero(&r.MemoryReservationBytes, int64(v.MemoryBytes))
		if cpus := exact(v.NanoCPUs.Value()); cpus > 0 {
			setUnlessZero(&r.CPUShares, max(2, int64(cpus*1024)))
		}
	}
}

func setUnlessZero[T int64 | float64](at *T, value T) {
	if *at == 0 {
		*at = value
	}
}

// exact is the decimal number that a file gave and compose-go keeps as float32.
func exact(f float32) float64 {
	d, _ := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', -1, 32), 64)
	return d
}

func (c *converter) checkResources(service string, r host.Resources) {
	at := func(key string) place { return c.key("services", service, key) }
	if r.MemoryBytes < 0 || r.MemoryReservationBytes < 0 {
		c.invalid(at("deploy"), "memory is negative")
	}
	if r.MemorySwapBytes < -1 {
		c.invalid(at("memswap_limit"), "%d: want a size or -1", r.MemorySwapBytes)
	}
	if r.MemorySwapBytes > 0 && (r.MemoryBytes == 0 || r.MemorySwapBytes < r.MemoryBytes) {
		c.invalid(at("memswap_limit"), "%d: is memory plus swap, so mem_limit must be given and not be larger", r.MemorySwapBytes)
	}
	if r.CPUs < 0 || r.CPUs > 1<<20 || r.CPUs != r.CPUs {
		c.invalid(at("cpus"), "%v: out of range", r.CPUs)
	}
	if r.CPUShares < 0 {
		c.invalid(at("cpu_shares"), "%d: negative", r.CPUShares)
	}
}

// capabilities are those of capabilities(7), without CAP_.
var capabilities = strings.Fields(`ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN
	MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID
	SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE
	SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)

// ulimits are the limits of setrlimit(2) in docker's words.
var ulimits = strings.Fields(`as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime
	sigpending stack`)

// security converts what a service may do on the host.
func (c *converter) security(s types.ServiceConfig, spec *host.ServiceSpec) {
	spec.Privileged = s.Privileged
	spec.CapAdd = c.capabilities(s.Name, "cap_add", s.CapAdd)
	spec.CapDrop = c.capabilities(s.Name, "cap_drop", s.CapDrop)
	for _, option := range s.SecurityOpt {
		if known, ok := c.securityOption(s.Name, option); ok {
			spec.SecurityOpt = append(spec.SecurityOpt, known)
		}
	}
	for _, d := range s.Devices {
		spec.Devices = append(spec.Devices, c.device(s.Name, d))
	}
	spec.Sysctls = nonEmpty(s.Sysctls)
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		c.ulimit(s.Name, name, s.Ulimits[name], spec)
	}
	switch s.Pid {
	case "", "host":
		spec.PIDMode = s.Pid
	default:
		c.unsupported(c.key("services", s.Name, "pid"), "%s", s.Pid)
	}
	switch s.Ipc {
	case "", "private", "shareable", "host":
		spec.IPCMode = s.Ipc
	default:
		c.unsupported(c.key("services", s.Name, "ipc"), "%s", s.Ipc)
	}
}

func (c *converter) capabilities(service, key string, names []string) []string {
	var known []string
	for _, name := range names {
		short := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if !slices.Contains(capabilities, short) {
			c.invalid(c.item(service, key, name), "%q: no such capability", name)
		}
		known = append(known, short)
	}
	return known
}

// securityOption gives an option in the one form that host.ServiceSpec holds;
// false for one that says what is so anyway.
func (c *converter) securityOption(service, option string) (string, bool) {
	at := c.item(service, "security_opt", option)
	key, value := option, ""
	if i := strings.IndexAny(option, "=:"); i >= 0 {
		key, value = option[:i], option[i+1:]
	}
	switch {
	case key == "no-new-privileges" && (value == "" || value == "true"):
		return key, true
	case key == "no-new-privileges" && value == "false":
		return "", false
	case key == "systempaths" && value == "unconfined":
		return "systempaths=unconfined", true
	case key == "seccomp" && value == "builtin":
		return "", false
	case key == "seccomp" && value != "":
		if value != "unconfined" {
			value = c.origin.absolute(at.position, value)
		}
		return "seccomp=" + value, true
	case (key == "apparmor" || key == "label") && value != "":
		return key + "=" + value, true
	}
	c.unsupported(at, "%s", option)
	return "", false
}

func (c *converter) device(service string, d types.DeviceMapping) host.DeviceSpec {
	at := c.item(service, "devices", d.Source)
	spec := host.DeviceSpec{Source: d.Source, Target: d.Target, Permissions: d.Permissions}
	if spec.Target == "" {
		spec.Target = spec.Source
	}
	if spec.Permissions == "" {
		spec.Permissions = "rwm"
	}
	switch {
	case strings.Contains(d.Source, "="):
		c.unsupported(at, "CDI device %s", d.Source)
	case !filepath.IsAbs(spec.Source) || !filepath.IsAbs(spec.Target):
		c.invalid(at, "%q: not a path below /dev", d.Source)
	case strings.Trim(spec.Permissions, "rwm") != "":
		c.invalid(at, "%q: want some of rwm", spec.Permissions)
	}
	return spec
}

func (c *converter) ulimit(service, name string, u *types.UlimitsConfig, spec *host.ServiceSpec) {
	at := c.key("services", service, "ulimits", name)
	if !slices.Contains(ulimits, name) {
		c.invalid(at, "no such limit")
		return
	}
	if u == nil {
		return
	}
	limit := host.Ulimit{Soft: int64(u.Soft), Hard: int64(u.Hard)}
	if u.Single != 0 {
		limit = host.Ulimit{Soft: int64(u.Single), Hard: int64(u.Single)}
	}
	if limit.Soft < -1 || limit.Hard < -1 || limit.Hard >= 0 && (limit.Soft < 0 || limit.Soft > limit.Hard) {
		c.invalid(at, "soft %d, hard %d: want -1 or a number, soft not above hard", limit.Soft, limit.Hard)
	}
	if spec.Ulimits == nil {
		spec.Ulimits = map[string]host.Ulimit{}
	}
	spec.Ulimits[name] = limit
}
