package container

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// security is what security_opt says.
type security struct {
	noNewPrivileges bool
	openPaths       bool   // nothing of /proc and /sys is masked
	seccomp         string // "", "unconfined" or the path of a profile
	appArmor        string // profile's name, "" for none
}

// readSecurity reads options of the form "name", "name=value" or "name:value".
// Errors: host.ErrUnsupported for what would be left undone.
func readSecurity(options []string) (security, error) {
	var s security
	for _, option := range options {
		name, value := option, ""
		if i := strings.IndexAny(option, "=:"); i >= 0 {
			name, value = option[:i], option[i+1:]
		}
		switch {
		case name == "no-new-privileges":
			s.noNewPrivileges = value != "false"
		case name == "systempaths" && value == "unconfined":
			s.openPaths = true
		case name == "seccomp" && value != "builtin":
			s.seccomp = value
		case name == "apparmor" && value != "unconfined":
			s.appArmor = value
		case name == "seccomp", name == "apparmor", name == "label" && value == "disable":
		default:
			return s, fmt.Errorf("security_opt %q: %w", option, host.ErrUnsupported)
		}
	}
	return s, nil
}

// filter is the seccomp profile; nil for none.
func (s *security) filter(set capabilitySet) (*specs.LinuxSeccomp, error) {
	switch s.seccomp {
	case "unconfined":
		return nil, nil
	case "":
		return defaultSeccomp(set), nil
	}
	return readProfile(s.seccomp, set)
}

// Paths below /proc and /sys that tell or change what is the host's.
var (
	maskedPaths = []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)
