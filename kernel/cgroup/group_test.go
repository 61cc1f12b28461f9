package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"torpor/host"
	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestMode(t *testing.T) {
	const head = "30 23 0:26 / "
	for _, c := range []struct {
		mounts string
		want   Mode
	}{
		{head + "/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", V2},
		{head + "/sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" + head + "/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", V1},
		{head + "/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" + head + "/sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n", Hybrid},
		{"30 23 0:26 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", ""}, // a part of a hierarchy only
		{"", ""},
		{"nonsense\n", ""},
	} {
		got, err := modeOf(hierarchies(c.mounts))
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("mode of %q: %q, %v; want %q", c.mounts, got, err, c.want)
		}
		if err != nil && !errors.Is(err, host.ErrKernel) {
			t.Errorf("error %v is no host.ErrKernel", err)
		}
	}
	got, err := ReadMode()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("this machine: %s", got)
}

// newGroup makes a group of the test's own in every hierarchy.
func newGroup(t *testing.T) (string, *Group) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root)
	points, err := mounted()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("/torpor-test-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
	for controller, point := range points {
		dir := filepath.Join(point, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
		if controller == "cpuset" { // else no process may enter
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				b, err := os.ReadFile(filepath.Join(point, file))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, file), b, 0)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	g, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	return name, g
}

func TestGroup(t *testing.T) {
	name, g := newGroup(t)
	cmd := exec.Command("sh", "-c", "read go; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo done; read end")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if err := g.AddPID(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	before, err := g.CPUUsage()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("processes %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	if after, err := g.CPUUsage(); err != nil || after <= before {
		t.Errorf("processor time %s, then %s, %v", before, after, err)
	}
	if bytes, err := g.MemoryBytes(); err != nil && !errors.Is(err, host.ErrKernel) || err == nil && bytes < 0 {
		t.Errorf("memory %d, %v", bytes, err)
	}
	if limit, err := g.MemoryLimit(); err != nil || limit != 0 {
		t.Errorf("memory limit %d, %v; want none", limit, err)
	}
	if err := g.Remove(); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("remove a group with a process: %v", err)
	}
	own, err := OwnOf(cmd.Process.Pid)
	if err != nil || !slices.Equal(slices.Sorted(slices.Values(own.Dirs)), g.Membership().Dirs) {
		t.Errorf("membership %v, %v; want %v", own.Dirs, err, g.Membership().Dirs)
	}
	in.Close()
	cmd.Wait()
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("open a removed group: %v", err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 0 {
		t.Errorf("processes of a removed group: %v, %v", pids, err)
	}
}

// TestInnerGroups is a container that makes groups of its own.
func TestInnerGroups(t *testing.T) {
	_, g := newGroup(t)
	inner := filepath.Join(g.Membership().Dirs[0], "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := (Membership{Dirs: []string{inner}}).Add(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("processes %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	in.Close()
	cmd.Wait()
}

// TestV2Files reads files as version 2 has them, wherever this machine's
// controllers are.
func TestV2Files(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "g")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		"cpu.stat": "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n", "memory.current": "4096\n", "memory.max": "max\n", "cgroup.procs": "7\n8\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g, err := open(map[string]string{"": root}, "/g")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := g.CPUUsage(); err != nil || d.Microseconds() != 1234 {
		t.Errorf("processor time %s, %v", d, err)
	}
	if n, err := g.MemoryBytes(); err != nil || n != 4096 {
		t.Errorf("memory %d, %v", n, err)
	}
	if n, err := g.MemoryLimit(); err != nil || n != 0 {
		t.Errorf("limit %d, %v", n, err)
	}
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{7, 8}) {
		t.Errorf("processes %v, %v", pids, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cpu.stat"), []byte("usage_usec x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := g.CPUUsage(); err == nil {
		t.Errorf("processor time of nonsense: %s", d)
	}
	for _, bad := range []string{"", "/", "..", "/.."} {
		if _, err := open(map[string]string{"": root}, bad); !errors.Is(err, host.ErrInvalid) {
			t.Errorf("open %q: %v", bad, err)
		}
	}
}
