package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/mount"
)

// Environment of the test binary when it runs as something else.
const (
	inNamespace = "TORPOR_IMAGE_TEST_NS"   // set: mounts are private
	pullDir     = "TORPOR_IMAGE_TEST_PULL" // set: pull into this store, forever
	pullRef     = "TORPOR_IMAGE_TEST_REF"
	killedChild = "TORPOR_TEST_KILLED_STORE" // set: a test that is going to be killed
)

// TestMain runs the tests in a mount namespace of their own, so that no mount
// outlives them however they end.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(pullDir) != "":
		pullForever()
	case os.Getenv(killedChild) != "":
		os.Exit(m.Run()) // leaves things behind; its parent looks after them
	case os.Getuid() == 0 && os.Getenv(inNamespace) == "":
		os.Exit(rerun())
	case os.Getuid() == 0:
		if err := mount.Private("/"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	kerneltest.Main(m)
}

func rerun() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return max(cmd.ProcessState.ExitCode(), 1)
	}
	return 0
}

// pullForever is the victim of the kill tests.
func pullForever() {
	for {
		s, err := Open(os.Getenv(pullDir))
		if err == nil {
			_, err = s.Pull(context.Background(), os.Getenv(pullRef), PullOptions{})
		}
		for range 5 {
			if err == nil {
				_, err = s.Pull(context.Background(), os.Getenv(pullRef), PullOptions{Policy: host.PullAlways})
			}
		}
		if err == nil {
			err = s.Remove(os.Getenv(pullRef), false)
		}
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func requireRoot(t testing.TB) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root)
}

func openStore(t testing.TB) *Store {
	t.Helper()
	requireRoot(t)
	return openStoreIn(t, t.TempDir()+"/store")
}

func openStoreIn(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
