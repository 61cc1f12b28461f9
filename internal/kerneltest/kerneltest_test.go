package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// leaveVariable tells the test binary, run by a test, what to leave behind.
const leaveVariable = "KERNELTEST_LEAVE"

func TestMainNoticesWhatIsLeft(t *testing.T) {
	for _, kind := range []string{"nothing", "process", "orphan", "descriptor", "goroutine", "file", "mount"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			if kind == "mount" {
				Require(t, Root, MntNS)
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestLeave$", "-test.v")
			cmd.Env = append(os.Environ(), leaveVariable+"="+kind, "TMPDIR="+t.TempDir())
			if kind == "mount" { // which goes with the namespace
				cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			}
			out, err := cmd.CombinedOutput()
			reported := strings.Contains(string(out), "left behind: "+word(kind))
			if kind == "nothing" {
				if err != nil {
					t.Fatalf("run that leaves nothing: %v\n%s", err, out)
				}
				return
			}
			if exit := new(exec.ExitError); !errors.As(err, &exit) || !reported {
				t.Fatalf("run that leaves a %s: %v\n%s", kind, err, out)
			}
			killMentioned(t, string(out))
		})
	}
}

func word(kind string) string {
	if kind == "orphan" {
		return "process"
	}
	return kind
}

// killMentioned ends the processes that the other run left.
func killMentioned(t *testing.T, out string) {
	for line := range strings.Lines(out) {
		var pid int
		if _, err := fmt.Sscanf(line, "kerneltest: left behind: process %d", &pid); err != nil {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
}

// TestLeave leaves something behind when TestMainNoticesWhatIsLeft runs it.
func TestLeave(t *testing.T) {
	var err error
	switch kind := os.Getenv(leaveVariable); kind {
	case "", "nothing":
	case "process":
		err = exec.Command("sleep", "60").Start()
	case "orphan":
		err = exec.Command("sh", "-c", "sleep 60 </dev/null >/dev/null 2>&1 &").Run()
	case "descriptor":
		_, err = syscall.Open(os.DevNull, syscall.O_RDONLY, 0)
	case "goroutine":
		go func() { select {} }()
	case "file":
		err = os.WriteFile(filepath.Join(os.TempDir(), "left"), nil, 0o600)
	case "mount":
		dir := filepath.Join(os.TempDir(), "left")
		err = errors.Join(os.Mkdir(dir, 0o700),
			syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""),
			syscall.Mount("tmpfs", dir, "tmpfs", 0, ""))
	default:
		t.Fatalf("%s=%s is unknown", leaveVariable, kind)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRequireSkipsUnlessForbidden(t *testing.T) {
	never := Need{name: "the moon", check: func() error { return errors.New("not here") }}
	for value, want := range map[string]string{"": "skip", "1": "fatal"} {
		t.Setenv(RequireVariable, value)
		fake := &recorder{TB: t}
		Require(fake, never)
		if !strings.HasPrefix(fake.got, want+": needs the moon") || !strings.HasSuffix(fake.got, "not here") {
			t.Errorf("with %s=%q: got %q", RequireVariable, value, fake.got)
		}
	}
}

// recorder notes what a test would do instead of doing it.
type recorder struct {
	testing.TB
	got string
}

func (r *recorder) Skipf(format string, args ...any) { r.got = "skip: " + fmt.Sprintf(format, args...) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.got = "fatal: " + fmt.Sprintf(format, args...)
}

func TestNeeds(t *testing.T) {
	for _, n := range []Need{Program("no-such-program"), Kernel("99.0"), File("/no/such/file"), Kernel("x")} {
		if err := n.Check(); err == nil {
			t.Errorf("%s is met", n.Name())
		}
	}
	for _, n := range []Need{Program("sh"), Kernel("2.6"), File("/proc"), Kernel("4.0")} {
		if err := n.Check(); err != nil {
			t.Errorf("%s: %v", n.Name(), err)
		}
	}
}

func TestBefore(t *testing.T) {
	for _, c := range []struct {
		version, least string
		want           bool
	}{
		{"6.18.44-fc", "6.7", false}, {"6.1.0-13-amd64", "6.7", true}, {"5.15", "5.15", false}, {"10.0-rc1", "6.7", false},
	} {
		if got, err := before(c.version, c.least); err != nil || got != c.want {
			t.Errorf("before(%s, %s) = %v, %v", c.version, c.least, got, err)
		}
	}
}

// TestKernelNeeds tries the needs of kernel tests, so that make test fails
// here, with their names, when the machine has none of them.
func TestKernelNeeds(t *testing.T) { Require(t, Root, Ptrace, NetNS, MntNS, PIDNS, UserNS, Runc, Nft) }
