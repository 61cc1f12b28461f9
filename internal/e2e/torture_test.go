package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

// tortureVariable is how long each of the tests that go on in rounds may take,
// such as "10m"; without it a round or two must do.
const tortureVariable = "TORPOR_TORTURE"

// rounds calls f at least so often, and as long as was asked for.
func rounds(t *testing.T, least int, f func(round int)) {
	t.Helper()
	var within time.Duration
	if text := os.Getenv(tortureVariable); text != "" {
		var err error
		if within, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", tortureVariable, err)
		}
	}
	begun := time.Now()
	for round := 0; round < least || time.Since(begun) < within; round++ {
		if f(round); t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// rig is a machine with a volume on several disks.
type rig struct {
	*machine
	name  string
	disks []string // paths, as torpor knows them
}

// newRig makes a volume of layout 4+2 on disks, which the caller frees: the
// volume is removed before that.
func newRig(m *machine, size string, disks []string, args ...string) *rig {
	m.t.Helper()
	r := &rig{machine: m, name: m.project + "_torture", disks: disks}
	args = append([]string{"volume", "create", r.name, "--size", size, "--layout", "4+2"}, args...)
	for _, d := range disks {
		args = append(args, "--disk", d)
	}
	m.must(args...)
	m.t.Cleanup(r.remove)
	return r
}

func (r *rig) remove() {
	if r.daemon == nil {
		r.serve()
	}
	if r.t.Failed() {
		r.t.Logf("volume was: %s", r.torpor("volume", "inspect", r.name))
		logs, _ := filepath.Glob(filepath.Join(r.state(), "logs", "*", "server.log"))
		for _, path := range logs {
			b, _ := os.ReadFile(path)
			r.t.Logf("%s:\n%s", path, b)
		}
	}
	if removed := r.torpor("volume", "rm", "--force", r.name); removed.code != 0 {
		r.t.Error(removed)
	}
}

// attach makes the volume a block device.
func (r *rig) attach() string {
	r.t.Helper()
	return strings.TrimSpace(r.must("volume", "attach", r.name))
}

// export serves the volume by NBD and returns its address.
func (r *rig) export() string {
	r.t.Helper()
	r.must("volume", "export", r.name)
	v := r.inspect()
	if len(v.Exports) != 1 {
		r.t.Fatalf("exports: %+v", v.Exports)
	}
	return v.Exports[0].URI
}

// rigVolume is what volume inspect --json says.
type rigVolume struct {
	volumeLine
	Exports []struct {
		URI string `json:"uri"`
	} `json:"exports"`
	Log struct {
		State  string    `json:"state"`
		Reason string    `json:"reason"`
		PID    int       `json:"pid"`
		Binary string    `json:"binary"`
		Disks  []rigDisk `json:"disks"`
	} `json:"log"`
}

// rigDisk is one of its disks.
type rigDisk struct {
	Path   string `json:"path"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Errors int64  `json:"errors"`
}

func (r *rig) inspect() rigVolume {
	r.t.Helper()
	var v rigVolume
	out := r.must("volume", "inspect", "--json", r.name)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		r.t.Fatalf("volume inspect --json: %v\n%s", err, out)
	}
	return v
}

// disk is what is said of the disk at a path.
func (v rigVolume) disk(path string) rigDisk {
	i := slices.IndexFunc(v.Log.Disks, func(d rigDisk) bool { return d.Path == path })
	if i < 0 {
		return rigDisk{}
	}
	return v.Log.Disks[i]
}

// whole checks the log with all its data.
func (r *rig) whole() {
	r.t.Helper()
	if check := r.torpor("volume", "check", "--data", "--json", r.name); check.code != 0 || !strings.Contains(check.stdout, "nothing is wrong") {
		r.t.Fatal(check)
	}
}

// sh runs a program of the host that has to succeed, and returns what it says.
func (m *machine) sh(name string, args ...string) string {
	m.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// mounted mounts a device for the time of the test, at a directory of that name.
func (m *machine) mounted(device, name string) string {
	m.t.Helper()
	dir := filepath.Join(m.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.sh("mount", device, dir)
	m.t.Cleanup(func() {
		for syscall.Unmount(dir, 0) == nil { // there may be several, or none any more
		}
	})
	return dir
}

// fileDisks makes sparse files.
func (m *machine) fileDisks(count int, sizeBytes int64) []string {
	m.t.Helper()
	var paths []string
	for i := range count {
		path := m.file(fmt.Sprintf("disk%d", i), "")
		if err := os.Truncate(path, sizeBytes); err != nil {
			m.t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// loopDisk makes a block device of a file for the time of the test.
func (m *machine) loopDisk(path string) string {
	m.t.Helper()
	device := strings.TrimSpace(m.sh("losetup", "-f", "--show", path))
	m.t.Cleanup(func() { m.sh("losetup", "-d", device) })
	return device
}

// checkable are file systems, with what checks them and changes nothing.
var checkable = []struct {
	name  string
	check []string // the device follows
}{
	{"ext4", []string{"e2fsck", "-f", "-n"}},
	{"xfs", []string{"xfs_repair", "-n"}},
	{"btrfs", []string{"btrfs", "check", "--readonly"}},
}

// mkfs makes a file system without asking what was there.
func (m *machine) mkfs(name, device string) {
	m.t.Helper()
	force := "-f"
	if name == "ext4" {
		force = "-F"
	}
	m.sh("mkfs."+name, "-q", force, device)
}

// tortureMachine has what these tests need.
func tortureMachine(t *testing.T) *machine {
	t.Helper()
	kerneltest.Require(t, kerneltest.Program("fio"), kerneltest.Program("losetup"),
		kerneltest.Program("mkfs.xfs"), kerneltest.Program("mkfs.btrfs"))
	return volumeMachine(t)
}
