package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// plainBundle needs no kernel: only a directory.
func plainBundle(t *testing.T) *Bundle {
	t.Helper()
	rootfs := t.TempDir()
	for name, content := range map[string]string{"etc/passwd": boxPasswd, "etc/group": boxGroup} {
		if err := os.MkdirAll(filepath.Join(rootfs, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(rootfs, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Bundle{ID: "p-s-1", RootFS: rootfs, InitHost: "/bin/true", Args: []string{"app"}, NetNS: "/run/netns/x"}
}

func TestBundleErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *Bundle)
		kind   error
		words  string
	}{
		"capability":  {func(b *Bundle) { b.Service.CapAdd = []string{"FLY"} }, host.ErrInvalid, "FLY"},
		"user":        {func(b *Bundle) { b.User = "nobody-knows" }, host.ErrInvalid, "nobody-knows"},
		"group":       {func(b *Bundle) { b.Service.GroupAdd = []string{"nobody-knows"} }, host.ErrInvalid, "nobody-knows"},
		"ulimit":      {func(b *Bundle) { b.Service.Ulimits = map[string]host.Ulimit{"files": {}} }, host.ErrInvalid, "files"},
		"ulimits":     {func(b *Bundle) { b.Service.Ulimits = map[string]host.Ulimit{"nofile": {Soft: 2, Hard: 1}} }, host.ErrInvalid, "nofile"},
		"option":      {func(b *Bundle) { b.Service.SecurityOpt = []string{"label=level:s0"} }, host.ErrUnsupported, "label"},
		"directory":   {func(b *Bundle) { b.WorkingDir = "app" }, host.ErrInvalid, "app"},
		"mount":       {func(b *Bundle) { b.Mounts = []BindMount{{Source: "/no/such/thing", Target: "/x"}} }, os.ErrNotExist, "/no/such/thing"},
		"target":      {func(b *Bundle) { b.Mounts = []BindMount{{Source: "/", Target: "x"}} }, host.ErrInvalid, "x"},
		"device":      {func(b *Bundle) { b.Service.Devices = []host.DeviceSpec{{Source: "/etc/passwd"}} }, host.ErrInvalid, "/etc/passwd"},
		"no device":   {func(b *Bundle) { b.Service.Devices = []host.DeviceSpec{{Source: "/dev/no-such"}} }, os.ErrNotExist, "/dev/no-such"},
		"profile":     {func(b *Bundle) { b.Service.SecurityOpt = []string{"seccomp=/no/such"} }, os.ErrNotExist, "/no/such"},
		"bad profile": {func(b *Bundle) { b.Service.SecurityOpt = []string{"seccomp=/bin/true"} }, host.ErrInvalid, "/bin/true"},
	} {
		b := plainBundle(t)
		c.change(b)
		_, err := b.Spec()
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		add, drop  []string
		privileged bool
		has, lacks []string
	}{
		{has: defaultCapabilities, lacks: []string{"SYS_ADMIN", "NET_ADMIN"}},
		{add: []string{"cap_net_admin"}, drop: []string{"MKNOD"}, has: []string{"NET_ADMIN", "CHOWN"}, lacks: []string{"MKNOD"}},
		{drop: []string{"ALL"}, lacks: allCapabilities},
		{add: []string{"CHOWN"}, drop: []string{"all"}, has: []string{"CHOWN"}, lacks: []string{"KILL"}},
		{add: []string{"ALL"}, drop: []string{"SYS_ADMIN"}, has: []string{"NET_ADMIN"}, lacks: []string{"SYS_ADMIN"}},
		{add: []string{"ALL"}, drop: []string{"ALL"}, has: []string{"NET_ADMIN"}},
		{privileged: true, drop: []string{"SYS_TIME"}, has: []string{"SYS_ADMIN"}, lacks: []string{"SYS_TIME"}},
	} {
		set, err := capabilities(&host.ServiceSpec{CapAdd: c.add, CapDrop: c.drop, Privileged: c.privileged})
		if err != nil {
			t.Fatal(err)
		}
		bounding, err := hostBounding()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range c.has {
			if bounding>>slices.Index(allCapabilities, name)&1 == 1 && !set[name] {
				t.Errorf("+%v -%v: lacks %s", c.add, c.drop, name)
			}
		}
		for _, name := range c.lacks {
			if set[name] {
				t.Errorf("+%v -%v: has %s", c.add, c.drop, name)
			}
		}
	}
}

func TestMounts(t *testing.T) {
	b := plainBundle(t)
	dir := t.TempDir()
	b.Service.Mounts = []host.MountSpec{{Kind: host.MountTmpfs, Target: "/a/b/c"}, {Kind: host.MountVolume, Source: "v", Target: "/v"}}
	b.Mounts = []BindMount{{Source: dir, Target: "/a/b", Propagation: "rslave"}, {Source: dir, Target: "/dev/shm"}, {Source: dir, Target: "/a/"}}
	spec, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range spec.Mounts {
		got = append(got, m.Destination+" "+m.Type)
	}
	want := []string{"/proc proc", "/dev tmpfs", "/dev/pts devpts", "/sys sysfs", "/sys/fs/cgroup cgroup", "/.torpor/init bind",
		"/a/ bind", "/a/b bind", "/dev/shm bind", "/a/b/c tmpfs"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if spec.Linux.RootfsPropagation != "rslave" {
		t.Errorf("root propagation %q", spec.Linux.RootfsPropagation)
	}
	b.Mounts = []BindMount{{Source: "/dev", Target: "/dev"}}
	b.Service.IPCMode, b.Service.PIDMode, b.NetNS = "host", "host", ""
	if spec, err = b.Spec(); err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Mounts {
		if strings.HasPrefix(m.Destination, "/dev/") {
			t.Errorf("%s hides the host's", m.Destination)
		}
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Type == specs.IPCNamespace || n.Type == specs.PIDNamespace || n.Type == specs.NetworkNamespace {
			t.Errorf("namespace %s of its own", n.Type)
		}
	}
	if len(spec.Linux.Sysctl) != 0 {
		t.Errorf("the host's network would be changed: %v", spec.Linux.Sysctl)
	}
}

// TestUserFilesStayInside has an image that tries to show the host's files, or
// to make the host wait.
func TestUserFilesStayInside(t *testing.T) {
	for name, make := range map[string]func(passwd string) error{
		"link out":      func(p string) error { return os.Symlink("../../../../../../../../etc/passwd", p) },
		"absolute link": func(p string) error { return os.Symlink("/etc/passwd", p) },
		"fifo":          makeFIFO,
		"directory":     func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		b := plainBundle(t)
		passwd := filepath.Join(b.RootFS, "etc/passwd")
		if err := errors.Join(os.Remove(passwd), make(passwd)); err != nil {
			t.Fatal(err)
		}
		if u, err := ResolveUser(b.RootFS, "daemon", nil); err == nil {
			t.Errorf("%s: found %+v", name, u)
		}
	}
	b := plainBundle(t)
	if err := os.Rename(filepath.Join(b.RootFS, "etc/passwd"), filepath.Join(b.RootFS, "etc/real")); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"../etc/real", "/etc/real", "real", "../../../etc/real"} {
		passwd := filepath.Join(b.RootFS, "etc/passwd")
		os.Remove(passwd)
		if err := os.Symlink(link, passwd); err != nil {
			t.Fatal(err)
		}
		if u, err := ResolveUser(b.RootFS, "app", nil); err != nil || u.UID != 1234 {
			t.Errorf("link to %s: %+v, %v", link, u, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(b.RootFS, "etc")); err != nil {
		t.Fatal(err)
	}
	if u, err := ResolveUser(b.RootFS, "7:8", nil); err != nil || u.UID != 7 || u.GID != 8 {
		t.Errorf("numbers without files: %+v, %v", u, err)
	}
}

func TestSecurityOptions(t *testing.T) {
	got, err := readSecurity([]string{"no-new-privileges", "seccomp:unconfined", "apparmor=mine", "systempaths=unconfined", "label=disable"})
	if err != nil || got != (security{noNewPrivileges: true, openPaths: true, seccomp: "unconfined", appArmor: "mine"}) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = readSecurity([]string{"no-new-privileges:false", "seccomp=/a=b:c", "apparmor=unconfined"})
	if err != nil || got != (security{seccomp: "/a=b:c"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestProfileConditions(t *testing.T) {
	content := `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
		{"names":["always"],"action":"SCMP_ACT_ALLOW"},
		{"names":["new"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"3.10"}},
		{"names":["future"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
		{"names":["old"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"3.10"}},
		{"names":["foreign"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}},
		{"names":["admin"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
		{"names":["notadmin"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}}]}`
	for want, set := range map[string]capabilitySet{"always new notadmin": {}, "always new admin": {"SYS_ADMIN": true}} {
		p, err := parseProfile([]byte(content), set)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range p.Syscalls {
			names = append(names, s.Names...)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzProfile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64"}],"syscalls":[{"name":"a","action":"b","args":[{"index":1}]}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[null]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := parseProfile(content, capabilitySet{"CHOWN": true})
		if err != nil {
			return
		}
		for _, rule := range p.Syscalls {
			if len(rule.Names) == 0 || rule.Action == "" {
				t.Errorf("rule %+v of %q", rule, content)
			}
		}
		if _, err := json.Marshal(p); err != nil {
			t.Error(err)
		}
	})
}

func makeFIFO(path string) error { return syscall.Mkfifo(path, 0o644) }
