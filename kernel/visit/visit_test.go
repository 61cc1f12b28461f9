package visit

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestDo(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Program("cat"))
	root := t.TempDir()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait() // its status says nothing
	})
	mine := namespaces(t, "self")
	theirs := namespaces(t, strconv.Itoa(cmd.Process.Pid))
	err = Do(cmd.Process.Pid, Network|IPC, func() error {
		if got := namespaces(t, "thread-self"); got != theirs || got == mine {
			t.Errorf("in %v, want %v", got, theirs)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	want := errors.New("mine")
	err = Do(os.Getpid(), Root, func() error {
		if err := syscall.Chroot(root); err != nil {
			return err
		}
		return want
	})
	if !errors.Is(err, want) {
		t.Errorf("passed on %v", err)
	}
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Errorf("the root directory of others was changed: %v", err)
	}
	if got := namespaces(t, "self"); got != mine {
		t.Errorf("afterwards in %v, was in %v", got, mine)
	}
	if err := Do(1<<22+1, Network, func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("visited nobody: %v", err)
	}
}

// namespaces names those of a task that Do changes.
func namespaces(t *testing.T, task string) (ids [2]string) {
	t.Helper()
	for i, name := range []string{"net", "ipc"} {
		var err error
		if ids[i], err = os.Readlink("/proc/" + task + "/ns/" + name); err != nil {
			t.Error(err)
		}
	}
	return ids
}
