package container

import (
	_ "embed"
	"runtime"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccompAllowed are system calls that any program may use: they act on the
// caller's own files, memory, processes and sockets, and the kernel checks
// permissions that namespaces limit. What is not there creates or enters
// namespaces, mounts, loads code into the kernel, sets its clock, opens files by
// handle, or has been a way into the kernel too often (io_uring, keyrings, bpf,
// userfaultfd).
//
//go:embed seccomp.txt
var seccompAllowed string

// byCapability are system calls that come with a capability.
var byCapability = map[string][]string{
	"BPF":             {"bpf"},
	"DAC_READ_SEARCH": {"open_by_handle_at"},
	"PERFMON":         {"perf_event_open"},
	"SYSLOG":          {"syslog"},
	"SYS_ADMIN": {"bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount",
		"mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname",
		"setns", "syslog", "umount", "umount2", "unshare"},
	"SYS_BOOT":       {"reboot"},
	"SYS_CHROOT":     {"chroot"},
	"SYS_MODULE":     {"delete_module", "finit_module", "init_module"},
	"SYS_NICE":       {"get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"},
	"SYS_PACCT":      {"acct"},
	"SYS_PTRACE":     {"kcmp", "pidfd_getfd", "process_madvise"},
	"SYS_RAWIO":      {"ioperm", "iopl"},
	"SYS_TIME":       {"clock_settime", "clock_settime64", "settimeofday", "stime"},
	"SYS_TTY_CONFIG": {"vhangup"},
}

const (
	// namespaceFlags are the CLONE_NEW* bits but CLONE_NEWTIME, which clone lacks.
	namespaceFlags = 0x7e020000

	// afVSOCK is the family that talks to the hypervisor, around all namespaces.
	afVSOCK = 40
)

// personalities that change nothing about protection: Linux, 32-bit Linux,
// both with the uname of 2.6, and the question for the current one.
var personalities = []uint64{0, 8, 0x20000, 0x20008, 0xffffffff}

// defaultSeccomp is the profile of a service that names none. It has the effect
// of docker's: what is not allowed fails with EPERM, but clone3 with ENOSYS,
// because its flags can not be seen by a filter and libraries then use clone.
func defaultSeccomp(set capabilitySet) *specs.LinuxSeccomp {
	eperm, enosys := uint(syscall.EPERM), uint(syscall.ENOSYS)
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &eperm, Architectures: architectures()}
	allow := func(names []string, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args})
	}
	allow(strings.Fields(seccompAllowed))
	allow([]string{"socket"}, specs.LinuxSeccompArg{Index: 0, Value: afVSOCK, Op: specs.OpNotEqual})
	for _, value := range personalities {
		allow([]string{"personality"}, specs.LinuxSeccompArg{Index: 0, Value: value, Op: specs.OpEqualTo})
	}
	for _, capability := range allCapabilities {
		if names := byCapability[capability]; set[capability] && names != nil {
			allow(names)
		}
	}
	if !set["SYS_ADMIN"] {
		allow([]string{"clone"}, specs.LinuxSeccompArg{Index: 0, Value: namespaceFlags, ValueTwo: 0, Op: specs.OpMaskedEqual})
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	}
	return p
}

// architectures are the machine's own and those it runs beside it.
func architectures() []specs.Arch {
	if runtime.GOARCH == "arm64" {
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
}

// containsAny reports whether the set has one of the names.
func (set capabilitySet) containsAny(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return set[capabilityName(n)] })
}

// containsEvery reports whether the set has all of the names.
func (set capabilitySet) containsEvery(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !set[capabilityName(n)] })
}
