package feature

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestKernelHasAll(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Ptrace, kerneltest.Kernel("6.8"))
	all := kerneltest.Kernel("6.15").Check() == nil
	for _, r := range Kernel() {
		if !r.OK && r.Name == "io-flusher" && strings.Contains(r.Cause, unix.EPERM.Error()) {
			continue // even root may lack CAP_SYS_RESOURCE, in a container
		}
		if !r.OK && (all || r.Required) {
			t.Errorf("%s: %s", r.Name, r.Cause)
		}
	}
	if err := Require(); err != nil {
		t.Errorf("Require: %v", err)
	}
	if !Has("pagemap-scan") {
		t.Error("Has does not know what Kernel knows")
	}
}

func TestTextsAreComplete(t *testing.T) {
	var names []string
	for _, r := range Check(Options{StateDir: t.TempDir(), Runtime: "runc"}) {
		if slices.Contains(names, r.Name) {
			t.Errorf("two features are called %s", r.Name)
		}
		names = append(names, r.Name)
		for _, text := range []string{r.Enables, r.Without, r.Next} {
			if text == "" || strings.HasSuffix(text, ".") {
				t.Errorf("%s: text %q", r.Name, text)
			}
		}
		if r.OK == (r.Cause != "") {
			t.Errorf("%s: ok %v, cause %q", r.Name, r.OK, r.Cause)
		}
	}
}

func TestMissing(t *testing.T) {
	results := []Result{
		{Feature: Feature{Name: "there", Required: true}, OK: true},
		{Feature: Feature{Name: "optional"}},
		{Feature: Feature{Name: "required", Required: true}},
	}
	if got := Missing(results); len(got) != 1 || got[0].Name != "required" {
		t.Errorf("Missing = %v", got)
	}
	if len(results) != 3 || results[0].Name != "there" {
		t.Errorf("Missing changed its argument: %v", results)
	}
}

func TestStateDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := tryStateDir(filepath.Join(dir, "not", "there")); err != nil || got != dir {
		t.Errorf("missing directory: %q, %v", got, err)
	}
	if _, err := tryStateDir(file); err == nil {
		t.Error("a file is a good state directory")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the trial left %v, %v", entries, err)
	}
}

func TestRuntimeIsMissing(t *testing.T) {
	if _, err := runtimeVersion("no-such-runtime"); err == nil {
		t.Error("a runtime that does not exist has a version")
	}
}

func TestMemoryHierarchy(t *testing.T) {
	v2 := func(string) []string { return []string{"cpu", "memory", "pids"} }
	none := func(string) []string { return nil }
	for name, c := range map[string]struct {
		mountinfo   string
		controllers func(string) []string
		dir, detail string
	}{
		"unified": {"30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", v2, "/sys/fs/cgroup", "v2: cpu memory pids"},
		"hybrid": {"31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"32 20 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
			"33 20 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
			"34 20 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", none, "/sys/fs/cgroup/memory", "v1: memory cpu cpuacct"},
		"empty": {"30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", none, "", "none is mounted"},
		"cut":   {"30 20\n - \n", none, "", "none is mounted"},
	} {
		if dir, detail := memoryHierarchy(c.mountinfo, c.controllers); dir != c.dir || detail != c.detail {
			t.Errorf("%s: %q, %q", name, dir, detail)
		}
	}
}

func TestRequireNamesTheNextStep(t *testing.T) {
	if os.Geteuid() == 0 {
		if err := Require(); err != nil && !errors.Is(err, host.ErrKernel) {
			t.Errorf("Require: %v", err)
		}
		return
	}
	err := Require()
	if !errors.Is(err, host.ErrKernel) || !strings.Contains(err.Error(), "sudo") {
		t.Errorf("without root Require says %v", err)
	}
}
