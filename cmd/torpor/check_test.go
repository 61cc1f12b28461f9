package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"torpor/internal/kerneltest"
	"torpor/kernel/feature"
)

// check runs torpor check with arguments.
func check(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	env := &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	code = execute(context.Background(), env, append([]string{"check"}, args...))
	return code, out.String(), errs.String()
}

func TestCheckOfACapableMachine(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Ptrace, kerneltest.Runc, kerneltest.Kernel("6.8"))
	code, stdout, stderr := check("--state-dir", t.TempDir())
	if code != 0 || !strings.Contains(stdout, "Services can run and sleep on this machine.") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, r := range feature.Kernel() {
		if !strings.Contains(stdout, "\n"+r.Name+" ") {
			t.Errorf("%s is not listed", r.Name)
		}
	}
}

func TestCheckSaysWhatIsMissing(t *testing.T) {
	code, stdout, stderr := check("--runtime", "no-such-runtime", "--state-dir", t.TempDir())
	if code != 1 || !strings.Contains(stderr, "missing") {
		t.Errorf("exit code %d, standard error %q", code, stderr)
	}
	for _, want := range []string{"oci-runtime", "MISSING", "without it: no service can be started", "next step:  install it"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
}

func TestCheckAsJSON(t *testing.T) {
	code, stdout, _ := check("--json", "--runtime", "no-such-runtime", "--state-dir", t.TempDir())
	var report checkReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	if code != 1 || report.OK || len(report.Features) != len(feature.Kernel())+2 {
		t.Errorf("exit code %d, report %+v", code, report)
	}
}

func TestCheckRefusesArguments(t *testing.T) {
	if code, _, stderr := check("everything"); code != 2 {
		t.Errorf("exit code %d, standard error %q", code, stderr)
	}
}
