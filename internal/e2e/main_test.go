package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"torpor/internal/kerneltest"
)

// insideVariable says that this process is in namespaces of its own.
const insideVariable = "TORPOR_E2E_INSIDE"

// program is the torpor under test.
var program string

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // every test says what it needs
	}
	if os.Getenv(insideVariable) == "" {
		os.Exit(again())
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	kerneltest.Main(m)
}

// again runs this process in new namespaces, with torpor built before.
func again() int {
	dir, err := os.MkdirTemp("", "te")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "torpor"), "torpor/cmd/torpor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: build torpor: %v\n%s", err, out)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"="+filepath.Join(dir, "torpor"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	err = cmd.Run()
	if cmd.Process != nil {
		err = errors.Join(err, detachLoops(fmt.Sprintf("/e2e%dm", cmd.Process.Pid)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return 0
}

// detachLoops detaches the loop devices of volumes whose names begin so. There
// are some if the tests were killed: the mounts went with their namespace, and
// nobody finds these devices any more.
func detachLoops(prefix string) error {
	var errs []error
	for _, device := range loopsOf(prefix) {
		out, err := exec.Command("losetup", "-d", device).CombinedOutput()
		errs = append(errs, fmt.Errorf("tests left %s: detached: %v %s", device, err, out))
	}
	return errors.Join(errs...)
}

func prepare() error {
	program = os.Getenv(insideVariable)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	return netlink.LinkSetUp(lo)
}
