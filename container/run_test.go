package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/cgroup"
)

func TestRun(t *testing.T) {
	b := newBox(t, "sh", "-c", `echo out; echo err >&2; pwd; echo $A; hostname; cat /etc/hostname; cut -d' ' -f1 /proc/1/stat; exit 7`)
	b.bundle.WorkingDir = "/home/app"
	b.bundle.Env = append(b.bundle.Env, "A=b c")
	file := filepath.Join(b.dir, "hostname")
	b.must(os.WriteFile(file, []byte("from a file\n"), 0o644))
	b.bundle.Mounts = append(b.bundle.Mounts, BindMount{Source: file, Target: "/etc/hostname"})
	b.start()
	status, stdout, stderr := b.wait()
	if status.ExitStatus() != 7 {
		t.Errorf("ended with %d", status.ExitStatus())
	}
	if diff := cmp.Diff("out\n/home/app\nb c\nboxed\nfrom a file\n1\n", stdout); diff != "" {
		t.Error(diff)
	}
	if stderr != "err\n" {
		t.Errorf("stderr %q", stderr)
	}
}

// TestUser is not root, and opens its own standard output again.
func TestUser(t *testing.T) {
	for name, want := range map[string]string{
		"app":        "uid=1234(app) gid=2345(appgroup) groups=2345(appgroup),60(games),77(extra)",
		"1234":       "uid=1234(app) gid=2345(appgroup) groups=2345(appgroup),60(games),77(extra)",
		"4321:extra": "uid=4321 gid=77(extra) groups=77(extra)",
		"":           "uid=0(root) gid=0(root) groups=0(root),77(extra)",
		"app:0":      "uid=1234(app) gid=0(root) groups=0(root),77(extra)",
		"1234:2345":  "uid=1234(app) gid=2345(appgroup) groups=2345(appgroup),77(extra)",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "sh", "-c", "id > /dev/stdout && echo more > /proc/self/fd/2 && grep CapEff /proc/self/status >/dev/stderr")
			b.bundle.User, b.bundle.Service.GroupAdd = name, []string{"extra"}
			b.start()
			status, stdout, stderr := b.wait()
			if status != 0 || strings.TrimSpace(stdout) != want {
				t.Errorf("%v: %q, want %q; stderr %q", status, stdout, want, stderr)
			}
			if root := name == ""; root == strings.Contains(stderr, "0000000000000000") {
				t.Errorf("effective capabilities: %q", stderr)
			}
		})
	}
}

// syscallProbe prints the errno of system calls by number, 0 for none.
const syscallProbe = `
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for call in sys.argv[1:]:
    args = [ctypes.c_long(int(a, 0)) for a in call.split(",")]
    ctypes.set_errno(0)
    r = libc.syscall(*args)
    print(call, ctypes.get_errno() if r == -1 else 0)
`

// TestSeccomp asks the kernel, in a container, what the default profile lets
// through. Numbers are of x86-64's syscall table.
func TestSeccomp(t *testing.T) {
	kerneltest.Require(t, kerneltest.File("/usr/bin/python3"))
	eperm, enosys, einval := int(syscall.EPERM), int(syscall.ENOSYS), int(syscall.EINVAL)
	calls := []struct {
		call                string
		plain, admin, loose int // errno by default, with SYS_ADMIN, unconfined with SYS_ADMIN
	}{
		{"39", 0, 0, 0},                                                          // getpid
		{"41,1,1,0", 0, 0, 0},                                                    // socket, AF_UNIX
		{"41,40,1,0", eperm, eperm, -1},                                          // socket, AF_VSOCK
		{"135,0xffffffff", 0, 0, 0},                                              // personality, a question
		{"135,0x0040000", eperm, eperm, 0},                                       // personality without address randomisation
		{"435,0,0", enosys, einval, einval},                                      // clone3
		{"272,0x04000000", eperm, 0, 0},                                          // unshare, CLONE_NEWUTS
		{"56,0x02000000,0", eperm, -1, -1},                                       // clone, CLONE_NEWCGROUP
		{"425,0,0", eperm, eperm, -1},                                            // io_uring_setup
		{"250,0,0,0", eperm, eperm, -1},                                          // keyctl
		{"323,0x80000", eperm, eperm, -1},                                        // userfaultfd
		{"246,0,0,0,0", eperm, eperm, -1},                                        // kexec_load
		{"101,2,0x3fffffff,0,0", int(syscall.ESRCH), int(syscall.ESRCH), -1},     // ptrace of nobody: let through
		{"161,0", int(syscall.EFAULT), int(syscall.EFAULT), int(syscall.EFAULT)}, // chroot comes with SYS_CHROOT
	}
	for _, c := range []struct {
		name string
		set  func(s *host.ServiceSpec)
		pick func(i int) int
		mode string
	}{
		{"default", func(s *host.ServiceSpec) {}, func(i int) int { return calls[i].plain }, "2"},
		{"admin", func(s *host.ServiceSpec) { s.CapAdd = []string{"SYS_ADMIN"} }, func(i int) int { return calls[i].admin }, "2"},
		{"unconfined", func(s *host.ServiceSpec) {
			s.CapAdd, s.SecurityOpt = []string{"SYS_ADMIN"}, []string{"seccomp=unconfined"}
		}, func(i int) int { return calls[i].loose }, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"sh", "-c", `grep ^Seccomp: /proc/self/status | tr -d '\t'; exec "$@"`, "sh", "python3", "-c", syscallProbe}
			var want []string
			for i, call := range calls {
				if errno := c.pick(i); errno >= 0 {
					args = append(args, call.call)
					want = append(want, fmt.Sprintf("%s %d", call.call, errno))
				}
			}
			b := newBox(t, args...)
			c.set(&b.bundle.Service)
			want = append([]string{"Seccomp:" + c.mode}, want...)
			if diff := cmp.Diff(want, strings.Split(b.output(), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestProfileFile uses a profile in docker's form.
func TestProfileFile(t *testing.T) {
	b := newBox(t, "sh", "-c", "mkdir /tmp/x 2>&1; uname -s")
	file := filepath.Join(b.dir, "profile.json")
	b.must(os.WriteFile(file, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
		"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"excludes":{"caps":["CAP_SYS_ADMIN"]}},
		{"name":"uname","action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}}]}`), 0o600))
	b.bundle.Service.SecurityOpt = []string{"seccomp=" + file}
	if got := b.output(); !strings.Contains(got, "Input/output error") || !strings.HasSuffix(got, "Linux") {
		t.Errorf("got %q", got)
	}
}

// TestConfinement compares a plain with a privileged container.
func TestConfinement(t *testing.T) {
	const script = `for f in /proc/kcore /proc/sys/kernel/hostname /sys/fs/cgroup /dev/kmsg; do
		test -e $f && echo there $f; done
		(echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo sysctl writable
		mkdir /sys/fs/cgroup/pids/x 2>/dev/null && echo cgroup writable && rmdir /sys/fs/cgroup/pids/x
		head -c 1 /proc/kcore 2>/dev/null | wc -c
		test -c /dev/kmsg && (: > /dev/kmsg) 2>/dev/null && echo kmsg writable
		grep -E 'CapBnd|NoNewPrivs' /proc/self/status | tr -d '\t'; true`
	for name, c := range map[string]struct {
		set  func(s *host.ServiceSpec)
		want []string
		not  []string
	}{
		"plain": {func(s *host.ServiceSpec) { s.SecurityOpt = []string{"no-new-privileges:true"} },
			[]string{"CapBnd:00000000a80425fb", "NoNewPrivs:1", "there /sys/fs/cgroup", "\n0\n"}, []string{"writable", "/dev/kmsg"}},
		"dropped": {func(s *host.ServiceSpec) { s.CapDrop, s.CapAdd = []string{"ALL"}, []string{"CAP_CHOWN", "NET_ADMIN"} },
			[]string{"CapBnd:0000000000001001", "NoNewPrivs:0"}, []string{"writable"}},
		"open paths": {func(s *host.ServiceSpec) { s.SecurityOpt = []string{"systempaths=unconfined"} },
			[]string{"sysctl writable"}, []string{"kmsg"}},
		"privileged": {func(s *host.ServiceSpec) { s.Privileged = true },
			[]string{"sysctl writable", "kmsg writable"}, nil},
		"device": {func(s *host.ServiceSpec) {
			s.Devices = []host.DeviceSpec{{Source: "/dev/kmsg", Target: "/dev/kmsg", Permissions: "rw"}}
		},
			[]string{"kmsg writable"}, []string{"sysctl"}},
		"device read-only": {func(s *host.ServiceSpec) {
			s.Devices = []host.DeviceSpec{{Source: "/dev/kmsg", Target: "/dev/kmsg", Permissions: "r"}}
		},
			[]string{"there /dev/kmsg"}, []string{"writable"}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			b := newBox(t, "sh", "-c", script)
			c.set(&b.bundle.Service)
			got := b.output()
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %q", want, got)
				}
			}
			for _, not := range c.not {
				if strings.Contains(got, not) {
					t.Errorf("%q in %q", not, got)
				}
			}
		})
	}
}

// TestLimits looks at limits from inside and outside.
func TestLimits(t *testing.T) {
	b := newBox(t, "sh", "-c", `ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; echo $(($(stat -f -c %b*%S /dev/shm)))
		grep ' /cache ' /proc/mounts; touch /x 2>&1; touch /cache/x && echo written
		cat /proc/sys/kernel/domainname /proc/sys/kernel/shmmni; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
		exec sleep 1000`)
	s := &b.bundle.Service
	s.Ulimits = map[string]host.Ulimit{"nofile": {Soft: 100, Hard: 200}}
	s.OOMScoreAdj, s.ShmSizeBytes, s.ReadOnly, s.DomainName = 123, 8<<20, true, "example.org"
	s.Sysctls = map[string]string{"kernel.shmmni": "77"}
	s.Mounts = []host.MountSpec{{Kind: host.MountTmpfs, Target: "/cache", SizeBytes: 1 << 20, Mode: 0o700, UID: "5", Options: []string{"exec"}}}
	s.Resources = host.Resources{MemoryBytes: 64 << 20, PidsMax: 50, CPUs: 0.5, CPUShares: 512}
	b.start()
	g, err := cgroup.Open(b.bundle.CgroupPath)
	b.must(err)
	if limit, err := g.MemoryLimit(); err != nil || limit != 64<<20 {
		t.Errorf("memory limit %d, %v", limit, err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) < 1 || !slices.Contains(pids, b.pid) {
		t.Errorf("processes %v, %v; init is %d", pids, err, b.pid)
	}
	if used, err := g.MemoryBytes(); err != nil || used <= 0 {
		t.Errorf("memory %d, %v", used, err)
	}
	var got string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !strings.Contains(got, "67108864"); time.Sleep(10 * time.Millisecond) {
		got += b.written("stdout")
	}
	lines := strings.Split(got, "\n")
	if len(lines) < 9 || strings.Join(lines[:4], " ") != "100 200 123 8388608" {
		t.Fatalf("got %q", got)
	}
	for _, option := range []string{"mode=700", "nodev", "nosuid", "size=1024k", "uid=5"} {
		if !strings.Contains(lines[4], option) {
			t.Errorf("no %s in tmpfs options %q", option, lines[4])
		}
	}
	if strings.Contains(lines[4], "noexec") {
		t.Errorf("the service's exec did not win: %q", lines[4])
	}
	if diff := cmp.Diff([]string{"touch: cannot touch '/x': Read-only file system", "written", "example.org", "77", "67108864"}, lines[5:10]); diff != "" {
		t.Error(diff)
	}
	// An exec'd process is limited too.
	if own, err := cgroup.OwnOf(b.pid); err != nil || len(own.Dirs) == 0 {
		t.Errorf("init's own cgroups: %v, %v", own, err)
	}
}

// TestTTY talks to a shell on a terminal and changes its size.
func TestTTY(t *testing.T) {
	b := newBox(t, "sh", "-c", "tty; stty size; while read line; do echo got $line; stty size; done; exit 3")
	b.bundle.Service.TTY = true
	b.start()
	if b.console == nil {
		t.Fatal("no terminal")
	}
	terminal := &expecter{t: t, file: b.console}
	terminal.expect("/dev/")
	terminal.expect("0 0")
	b.must(unix.IoctlSetWinsize(int(b.console.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 101}))
	fmt.Fprintln(b.console, "hello")
	terminal.expect("got hello")
	terminal.expect("33 101")
	fmt.Fprint(b.console, "\x04")
	status, stdout, stderr := b.wait()
	if status.ExitStatus() != 3 || stdout+stderr != "" {
		t.Errorf("%v, %q, %q", status, stdout, stderr)
	}
}

// expecter reads a terminal until a text comes.
type expecter struct {
	t    *testing.T
	file *os.File
	seen string
}

func (e *expecter) expect(want string) {
	e.t.Helper()
	buf := make([]byte, 1024)
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, rest, ok := strings.Cut(e.seen, want); ok {
			e.seen = rest
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("no %q in %q", want, e.seen)
		}
		fds := []unix.PollFd{{Fd: int32(e.file.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) || n == 0 {
			continue
		}
		n, err := e.file.Read(buf)
		if err != nil {
			e.t.Fatalf("no %q in %q: %v", want, e.seen, err)
		}
		e.seen += string(buf[:n])
	}
}

// TestExec runs commands beside an application.
func TestExec(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.start()
	ctx := context.Background()
	run := func(e ExecSpec, input string) (int, string, error) {
		t.Helper()
		in, inWriter, err := os.Pipe()
		b.must(err)
		defer in.Close()
		fmt.Fprint(inWriter, input)
		inWriter.Close()
		out, err := os.CreateTemp(t.TempDir(), "out")
		b.must(err)
		defer out.Close()
		code, err := b.runtime.Exec(ctx, b.bundle.ID, e, ExecStreams{Stdin: in, Stdout: out, Stderr: out})
		text, readErr := os.ReadFile(out.Name())
		b.must(readErr)
		return code, string(text), err
	}
	code, text, err := run(ExecSpec{Args: []string{"sh", "-c", "cat; pwd; echo $X; id -u; grep ^Seccomp: /proc/self/status | tr -d '\t'; exit 42"}, Env: []string{"X=y"}, WorkingDir: "/home", User: "1234:2345"}, "in\n")
	if code != 42 || err != nil || text != "in\n/home\ny\n1234\nSeccomp:2\n" {
		t.Errorf("%d, %q, %v", code, text, err)
	}
	if code, _, err := run(ExecSpec{Args: []string{"sh", "-c", "kill -9 $$"}}, ""); code != 137 || err != nil {
		t.Errorf("killed: %d, %v", code, err)
	}
	if _, _, err := run(ExecSpec{Args: []string{"no-such-command"}}, ""); err == nil || !strings.Contains(err.Error(), "no-such-command") {
		t.Errorf("missing command: %v", err)
	}
	if _, err := b.runtime.Exec(ctx, "no-such-container", ExecSpec{Args: []string{"true"}}, ExecStreams{}); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("missing container: %v", err)
	}
	b.execOnTerminal()
	b.execCancelled()
}

// execOnTerminal runs a command on a terminal of the caller's.
func (b *box) execOnTerminal() {
	b.t.Helper()
	master, slave := openTerminal(b.t)
	defer master.Close()
	ctx, cancel := context.WithCancel(context.Background())
	b.must(unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 21, Col: 77}))
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		code, err := b.runtime.Exec(ctx, b.bundle.ID, ExecSpec{Args: []string{"sh", "-c", "tty; until stty size | grep -v '^0 0'; do sleep .01; done; read x; echo $x$x; exit 5"}, TTY: true}, ExecStreams{slave, slave, slave})
		done <- result{code, err}
	}()
	terminal := &expecter{t: b.t, file: master}
	terminal.expect("/dev/pts/")
	terminal.expect("21 77")
	fmt.Fprint(master, "ab\r")
	terminal.expect("abab")
	if r := <-done; r.code != 5 || r.err != nil {
		b.t.Errorf("on a terminal: %d, %v", r.code, r.err)
	}
	slave.Close()
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// execCancelled gives up on a command that hangs; it must not stay behind.
func (b *box) execCancelled() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g, err := cgroup.Open(b.bundle.CgroupPath)
	b.must(err)
	before, err := g.Pids()
	b.must(err)
	done := make(chan error)
	go func() {
		_, err := b.runtime.Exec(ctx, b.bundle.ID, ExecSpec{Args: []string{"sleep", "1001"}}, ExecStreams{})
		done <- err
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if out, _ := exec.Command("pgrep", "-f", "^sleep 1001$").Output(); len(out) > 0 || time.Now().After(deadline) {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		b.t.Errorf("given up: %v", err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		after, err := g.Pids()
		b.must(err)
		if len(after) <= len(before) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("processes before %v, after %v", before, after)
		}
	}
}

func TestRuntimeErrors(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	ctx := context.Background()
	if _, err := OpenRuntime("no-such-runtime", b.dir); !errors.Is(err, host.ErrNotFound) || !strings.Contains(err.Error(), "apt install runc") {
		t.Errorf("missing runtime: %v", err)
	}
	if _, err := b.runtime.State(ctx, "none"); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("state of none: %v", err)
	}
	if err := b.runtime.Delete(ctx, "none"); err != nil {
		t.Errorf("delete none: %v", err)
	}
	if err := b.runtime.Kill(ctx, "none", syscall.SIGTERM, false); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("signal none: %v", err)
	}
	b.start()
	stdio, err := NewStdio(StdioSpec{Dir: filepath.Join(b.dir, "run2")})
	b.must(err)
	defer stdio.Close()
	if _, err := b.runtime.Create(ctx, b.bundle.ID, filepath.Join(b.dir, "bundle"), stdio); !errors.Is(err, host.ErrExists) {
		t.Errorf("create again: %v", err)
	}
	state, err := b.runtime.State(ctx, b.bundle.ID)
	if err != nil || state.Status != "running" || state.PID != b.pid || state.ID != b.bundle.ID {
		t.Errorf("state %+v, %v; init is %d", state, err, b.pid)
	}
	b.must(b.runtime.Kill(ctx, b.bundle.ID, syscall.SIGKILL, true))
	for deadline := time.Now().Add(30 * time.Second); state.Status != "stopped" && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		state, err = b.runtime.State(ctx, b.bundle.ID)
		b.must(err)
	}
	if state.Status != "stopped" {
		t.Errorf("state after kill: %+v", state)
	}
	bad := newBox(t, "true")
	bad.bundle.ID += "-bad"
	bad.bundle.CgroupPath += "-bad"
	bad.bundle.Service.Sysctls = map[string]string{"kernel.panic": "1"}
	b.must(bad.bundle.Write(filepath.Join(bad.dir, "bundle")))
	if _, err := bad.runtime.Create(ctx, bad.bundle.ID, filepath.Join(bad.dir, "bundle"), stdio); err == nil || !strings.Contains(err.Error(), "kernel.panic") {
		t.Errorf("the runtime's own words are lost: %v", err)
	}
	bad.remove()
}
