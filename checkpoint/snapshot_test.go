package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/kernel/proc"
)

// snapshot is what can be seen of a tree from outside, by pid inside the tree
// and name of the fact.
type snapshot map[string]string

// snapshot reads everything that must be the same before and after a sleep.
func (tree *testTree) snapshot() snapshot {
	tree.t.Helper()
	s := snapshot{}
	pids, err := ContainerTree(tree.init.Process.Pid)()
	if err != nil {
		tree.t.Fatal(err)
	}
	inner := map[string]string{strconv.Itoa(tree.init.Process.Pid): "1"}
	for _, pid := range pids {
		status, err := proc.ReadStatus(pid, pid)
		if err != nil {
			tree.t.Fatal(err)
		}
		inner[strconv.Itoa(pid)] = strconv.Itoa(status.NSPIDs[len(status.NSPIDs)-1])
	}
	for _, pid := range pids {
		if status, err := proc.ReadStatus(pid, pid); err == nil && status.State == 'Z' {
			s[inner[strconv.Itoa(pid)]] = "zombie"
			continue
		}
		s.process(tree.t, pid, inner)
	}
	return s
}

func (s snapshot) process(t *testing.T, pid int, inner map[string]string) {
	t.Helper()
	key := inner[strconv.Itoa(pid)]
	for _, name := range []string{"limits", "cmdline", "environ", "auxv", "personality", "oom_score_adj", "coredump_filter"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		s[key+" "+name] = string(b)
	}
	for _, name := range []string{"cwd", "exe", "root"} {
		s.link(t, key+" "+name, fmt.Sprintf("/proc/%d/%s", pid, name))
	}
	descriptors, err := proc.Descriptors(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range descriptors {
		name := fmt.Sprintf("%s fd %d", key, fd)
		s.link(t, name, fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "flags:") || strings.HasPrefix(line, "pos:") || strings.HasPrefix(line, "tfd:") {
				s[name] += " " + strings.TrimSpace(line)
			}
		}
	}
	tasks, err := proc.Tasks(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tasks {
		s.task(t, key, pid, tid, inner)
	}
}

func (s snapshot) link(t *testing.T, name, path string) {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	s[name] = target
}

// statusOutside are the fields of status with pids of this namespace, or that
// change all the time.
const statusOutside = " State Tgid Ngid Pid PPid NStgid voluntary_ctxt_switches nonvoluntary_ctxt_switches SigQ FDSize" +
	" VmPeak VmSize VmLck VmPin VmHWM VmRSS RssAnon RssFile RssShmem VmData VmStk VmExe VmLib VmPTE VmSwap HugetlbPages TracerPid Cpus_active "

func (s snapshot) task(t *testing.T, key string, pid, tid int, inner map[string]string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/task/%d", pid, tid)
	b, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	status, err := proc.ParseStatus(string(b))
	if err != nil {
		t.Fatal(err)
	}
	key = fmt.Sprintf("%s task %d ", key, status.NSPIDs[len(status.NSPIDs)-1])
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if strings.Contains(statusOutside, " "+name+" ") {
			continue
		}
		value = strings.TrimSpace(value)
		if fields := strings.Fields(value); strings.HasPrefix(name, "NS") && len(fields) > 0 {
			value = fields[len(fields)-1]
		}
		s[key+name] = value
	}
	s[key+"parent"] = inner[strconv.Itoa(status.PPID)]
	scheduling, err := proc.ReadScheduling(tid)
	if err != nil {
		t.Fatal(err)
	}
	s[key+"scheduling"] = fmt.Sprintf("%+v", scheduling)
	priority, err := proc.IOPriority(tid)
	if err != nil {
		t.Fatal(err)
	}
	s[key+"I/O priority"] = fmt.Sprintf("%#x", priority)
	slack, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid))
	if err != nil {
		t.Fatal(err)
	}
	s[key+"timer slack"] = string(slack)
}

// checkSame reports what is different after a sleep.
func checkSame(t *testing.T, before, after snapshot) {
	t.Helper()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the tree is not what it was (-before +after):\n%s", diff)
	}
}
