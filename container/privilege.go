package container

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
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

// capabilities applies cap_add and cap_drop. Those that this host itself lacks
// can not be given.
func capabilities(s *host.ServiceSpec) (*specs.LinuxCapabilities, error) {
	set := map[string]bool{}
	give := func(names []string, value bool) error {
		for _, name := range names {
			name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
			switch {
			case name == "ALL":
				for _, c := range allCapabilities {
					set[c] = value
				}
			case slices.Contains(allCapabilities, name):
				set[name] = value
			default:
				return fmt.Errorf("capability %s: %w", name, host.ErrInvalid)
			}
		}
		return nil
	}
	base, add := defaultCapabilities, s.CapAdd
	if s.Privileged {
		base, add = allCapabilities, nil
	}
	_ = give(base, true)
	if slices.Contains(s.CapDrop, "ALL") {
		_ = give([]string{"ALL"}, false)
	}
	if err := give(add, true); err != nil {
		return nil, err
	}
	if err := give(slices.DeleteFunc(slices.Clone(s.CapDrop), func(c string) bool { return c == "ALL" }), false); err != nil {
		return nil, err
	}
	bounding, err := hostBounding()
	if err != nil {
		return nil, err
	}
	var names []string
	for number, name := range allCapabilities {
		if set[name] && bounding>>number&1 != 0 {
			names = append(names, "CAP_"+name)
		}
	}
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}, nil
}

// hostBounding is this process's own bounding set.
func hostBounding() (uint64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "CapBnd:\t")
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseUint(line, 16, 64)
}

//go:embed seccomp.txt
var seccompAllowed string

// seccomp is the default profile: system calls that unprivileged programs use
// are allowed, others fail with EPERM; clone3 with ENOSYS, because its flags
// can not be seen by a filter and libraries then use clone.
func (b *Bundle) seccomp() (*specs.LinuxSeccomp, error) {
	for _, option := range b.Service.SecurityOpt {
		name, ok := strings.CutPrefix(strings.Replace(option, "=", ":", 1), "seccomp:")
		switch {
		case !ok:
			continue
		case name == "unconfined":
			return nil, nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read seccomp profile: %w", err)
		}
		profile := new(specs.LinuxSeccomp)
		if err := json.Unmarshal(content, profile); err != nil {
			return nil, fmt.Errorf("read seccomp profile %s: %w", name, err)
		}
		return profile, nil
	}
	return defaultSeccomp(&b.Service), nil
}

// namespaceFlags are the CLONE_NEW* bits but CLONE_NEWTIME, which clone lacks.
const namespaceFlags = 0x7e020000

func defaultSeccomp(s *host.ServiceSpec) *specs.LinuxSeccomp {
	eperm, enosys := uint(syscall.EPERM), uint(syscall.ENOSYS)
	p := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &eperm,
		Architectures:   []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
	}
	allow := func(names ...string) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow})
	}
	allow(strings.Fields(seccompAllowed)...)
	for _, personality := range []uint64{0, 8, 0x20000, 0x20008, 0xffffffff} {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: personality, Op: specs.OpEqualTo}}})
	}
	if slices.Contains(s.CapAdd, "SYS_ADMIN") || slices.Contains(s.CapAdd, "ALL") {
		allow("bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr",
			"move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2", "unshare")
	} else {
		p.Syscalls = append(p.Syscalls,
			specs.LinuxSyscall{Names: []string{"clone"}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: namespaceFlags, ValueTwo: 0, Op: specs.OpMaskedEqual}}},
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	}
	for capability, names := range map[string][]string{
		"SYS_PTRACE": {"kcmp", "pidfd_getfd", "process_madvise"}, "SYS_CHROOT": {"chroot"}, "SYS_TIME": {"settimeofday", "stime", "clock_settime", "clock_settime64"},
		"SYS_MODULE": {"delete_module", "init_module", "finit_module"}, "SYS_PACCT": {"acct"}, "SYS_RAWIO": {"iopl", "ioperm"},
		"SYS_BOOT": {"reboot"}, "SYS_NICE": {"get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"}, "SYSLOG": {"syslog"},
		"DAC_READ_SEARCH": {"open_by_handle_at"}, "BPF": {"bpf"}, "PERFMON": {"perf_event_open"}, "SYS_TTY_CONFIG": {"vhangup"},
	} {
		if capability == "SYS_CHROOT" && !slices.Contains(s.CapDrop, "SYS_CHROOT") || slices.Contains(s.CapAdd, capability) || slices.Contains(s.CapAdd, "ALL") {
			allow(names...)
		}
	}
	return p
}

// ResolveUser finds ids for "user", "uid", "user:group" and the like in the
// root file system's own files. "" is root.
func ResolveUser(rootfs, name string, groups []string) (*specs.User, error) {
	passwd, group := openInside(rootfs, "etc/passwd"), openInside(rootfs, "etc/group")
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, reader(passwd), reader(group))
	closeAll(passwd, group)
	if err != nil {
		return nil, fmt.Errorf("find user %q in the image: %w", name, err)
	}
	u := &specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	for _, gid := range found.Sgids {
		u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
	}
	if len(groups) == 0 {
		return u, nil
	}
	group = openInside(rootfs, "etc/group")
	more, err := user.GetAdditionalGroups(groups, reader(group))
	closeAll(group)
	if err != nil {
		return nil, fmt.Errorf("find groups %v in the image: %w", groups, err)
	}
	for _, gid := range more {
		u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
	}
	return u, nil
}

// openInside opens a file of the root file system; links that lead out of it
// are not followed. nil when there is none.
func openInside(rootfs, name string) *os.File {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	return f
}

func reader(f *os.File) io.Reader {
	if f == nil {
		return strings.NewReader("")
	}
	return f
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// devices adds the service's devices.
func (b *Bundle) devices(l *specs.Linux) error {
	for _, d := range b.Service.Devices {
		info, err := os.Stat(d.Source)
		if err != nil {
			return fmt.Errorf("pass device: %w", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || info.Mode()&os.ModeDevice == 0 {
			return fmt.Errorf("pass device %s: not a device: %w", d.Source, host.ErrInvalid)
		}
		kind := "b"
		if info.Mode()&os.ModeCharDevice != 0 {
			kind = "c"
		}
		major, minor := int64(st.Rdev>>8&0xfff|st.Rdev>>32&^0xfff), int64(st.Rdev&0xff|st.Rdev>>12&^0xff)
		mode := info.Mode().Perm()
		uid, gid := st.Uid, st.Gid
		target := d.Target
		if target == "" {
			target = d.Source
		}
		l.Devices = append(l.Devices, specs.LinuxDevice{Path: filepath.Clean(target), Type: kind, Major: major, Minor: minor, FileMode: &mode, UID: &uid, GID: &gid})
		access := d.Permissions
		if access == "" {
			access = "rwm"
		}
		l.Resources.Devices = append(l.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access})
	}
	return nil
}
