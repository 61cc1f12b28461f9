package kerneltest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The needs that are tried once a process.
var (
	Root   = need("root", tryRoot)
	Ptrace = need("ptrace", tryPtrace)
	NetNS  = need("network namespaces", func() error { return tryUnshare(syscall.CLONE_NEWNET) })
	MntNS  = need("mount namespaces", func() error { return tryUnshare(syscall.CLONE_NEWNS) })
	PIDNS  = need("pid namespaces", tryPIDNS)
	UserNS = need("user namespaces", tryUserNS)
	Runc   = need("runc", func() error { return tryRun("runc", "--version") })
	Nft    = need("nftables", tryNft)
)

// Program needs an executable: a name that is looked up in PATH, where sbin
// directories count, or a path.
func Program(name string) Need {
	return need("program "+name, func() error {
		_, err := lookUp(name)
		return err
	})
}

// File needs a file or directory to exist.
func File(path string) Need {
	return need("file "+path, func() error {
		_, err := os.Stat(path)
		return err
	})
}

// Kernel needs at least this version, such as "5.15" or "6.7".
func Kernel(least string) Need {
	return need("Linux "+least, func() error {
		var name syscall.Utsname
		if err := syscall.Uname(&name); err != nil {
			return fmt.Errorf("ask kernel version: %w", err)
		}
		release := utsString(name.Release[:])
		older, err := before(release, least)
		if err == nil && older {
			err = fmt.Errorf("this is %s", release)
		}
		return err
	})
}

func need(name string, try func() error) Need {
	return Need{name: name, check: sync.OnceValue(try)}
}

// before compares the leading numbers of two versions.
func before(version, least string) (bool, error) {
	have, err := leadingNumbers(version)
	if err != nil {
		return false, err
	}
	want, err := leadingNumbers(least)
	if err != nil {
		return false, err
	}
	if have[0] != want[0] {
		return have[0] < want[0], nil
	}
	return have[1] < want[1], nil
}

func leadingNumbers(version string) ([2]int, error) {
	var numbers [2]int
	major, rest, ok := strings.Cut(version, ".")
	if !ok {
		return numbers, fmt.Errorf("read version %q: no dot", version)
	}
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		rest = rest[:end]
	}
	for i, text := range []string{major, rest} {
		n, err := strconv.Atoi(text)
		if err != nil {
			return numbers, fmt.Errorf("read version %q: %w", version, err)
		}
		numbers[i] = n
	}
	return numbers, nil
}

func utsString(chars []int8) string {
	var b bytes.Buffer
	for _, c := range chars {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

func tryRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("user id is %d; run the tests with sudo", uid)
	}
	return nil
}

// tryUnshare makes a namespace for another process. A thread of this one could
// be its first, which Go can not end: /proc/self would show the tests another
// namespace from then on, and the mounts in it would stay busy.
func tryUnshare(flags uintptr) error {
	return tryAttributes(&syscall.SysProcAttr{Unshareflags: flags})
}

// tryPtrace starts a program traced, which shows that nothing forbids it.
func tryPtrace() error {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	cmd, err := program(&syscall.SysProcAttr{Ptrace: true})
	if err != nil {
		return err
	}
	defer cmd.Wait() // it was killed: there is no other news
	defer cmd.Process.Kill()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil {
		return fmt.Errorf("wait for traced program: %w", err)
	}
	if !status.Stopped() {
		return fmt.Errorf("trace program: it did not stop, status %x", int(status))
	}
	return nil
}

func tryPIDNS() error {
	return tryAttributes(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
}

func tryUserNS() error {
	return tryAttributes(&syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
	})
}

func tryAttributes(attr *syscall.SysProcAttr) error {
	cmd, err := program(attr)
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// program starts a program that every machine has and that ends at once.
func program(attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	path, err := lookUp("true")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.SysProcAttr = attr
	return cmd, cmd.Start()
}

func tryNft() error {
	if err := tryRoot(); err != nil {
		return err
	}
	return tryRun("nft", "list", "tables")
}

func tryRun(name string, args ...string) error {
	path, err := lookUp(name)
	if err != nil {
		return err
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// lookUp finds a program in PATH or, for those who are not root, beside it.
func lookUp(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || strings.Contains(name, "/") || !errors.Is(err, exec.ErrNotFound) {
		return path, err
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if found, err := exec.LookPath(dir + "/" + name); err == nil {
			return found, nil
		}
	}
	return "", err
}
