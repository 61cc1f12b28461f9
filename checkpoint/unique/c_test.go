package unique_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"torpor/internal/kerneltest"
	"torpor/kernel/ptrace"
)

// compileC compiles testdata/NAME.c.
func compileC(t *testing.T, name string, flags ...string) string {
	t.Helper()
	kerneltest.Require(t, kerneltest.Program("gcc"))
	path := filepath.Join(t.TempDir(), name)
	args := append(flags, "-Wall", "-O1", "-o", path, filepath.Join("testdata", name+".c"))
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return path
}

func TestLibc(t *testing.T) {
	for name, flags := range map[string][]string{"dynamic": nil, "static": {"-static"}} {
		t.Run(name, func(t *testing.T) { startService(t, compileC(t, "libc", flags...)).checkFutures() })
	}
}

// TestHostile looks at a program that pretends to be all runtimes at once and
// is full of look-alikes. Its own memory stays as it is, and its RAND_poll,
// which does not return, is an error.
func TestHostile(t *testing.T) {
	s := startService(t, compileC(t, "hostile", "-rdynamic", "-Wno-pointer-to-int-cast"))
	s.sleep()
	if got := s.specs[0].Places; len(got) > 1 {
		t.Errorf("%d places are found: %+v ...", len(got), got[0])
	}
	err := s.tryRestore(true)
	if !errors.Is(err, ptrace.ErrUnfinished) || !strings.Contains(err.Error(), "RAND_poll") {
		t.Errorf("renew: %v", err)
	}
	s.specs[0].Calls = nil
	if got := s.future(true)["same"]; got != "1" {
		t.Errorf("its memory is not the same: %q", got)
	}
}
