package container

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// defaultCapabilities are those a container has unless told otherwise, the
// set that docker gives.
var defaultCapabilities = []string{"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
	"SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"}

// allCapabilities are those of Linux 5.9 and later, by number.
var allCapabilities = []string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
	"SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
	"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE"}

// capabilitySet holds capabilities by their names without CAP_.
type capabilitySet map[string]bool

// capabilities applies cap_add and cap_drop; what is both added and dropped by
// name is dropped. Those that this host itself lacks can not be given.
func capabilities(s *host.ServiceSpec) (capabilitySet, error) {
	set := capabilitySet{}
	base := defaultCapabilities
	if s.Privileged {
		base = allCapabilities
	}
	if !hasAll(s.CapDrop) {
		set.give(base, true)
	}
	if hasAll(s.CapAdd) {
		set.give(allCapabilities, true)
	}
	for _, change := range []struct {
		names []string
		value bool
	}{{s.CapAdd, true}, {s.CapDrop, false}} {
		for _, name := range change.names {
			name = capabilityName(name)
			if name != "ALL" && !slices.Contains(allCapabilities, name) {
				return nil, fmt.Errorf("capability %s: %w", name, host.ErrInvalid)
			}
			if name != "ALL" {
				set[name] = change.value
			}
		}
	}
	bounding, err := hostBounding()
	if err != nil {
		return nil, err
	}
	for number, name := range allCapabilities {
		if bounding>>number&1 == 0 {
			delete(set, name)
		}
	}
	return set, nil
}

func (set capabilitySet) give(names []string, value bool) {
	for _, name := range names {
		set[name] = value
	}
}

func capabilityName(name string) string { return strings.TrimPrefix(strings.ToUpper(name), "CAP_") }

func hasAll(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return capabilityName(n) == "ALL" })
}

// spec lists the set for a process. Another user than root begins with none
// effective and may get them by programs that have them, as with execve.
func (set capabilitySet) spec(uid uint32) *specs.LinuxCapabilities {
	var names []string
	for _, name := range allCapabilities {
		if set[name] {
			names = append(names, "CAP_"+name)
		}
	}
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: names}
	}
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

// hostBounding is this process's own bounding set.
func hostBounding() (uint64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	_, rest, _ := strings.Cut(string(b), "CapBnd:\t")
	line, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	return set, nil
}
