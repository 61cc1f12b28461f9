package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

//go:embed testdata/writer.py
var writer string

// onVolume is a compose file with a service that keeps its data on a volume.
const onVolume = `
services:
  web:
    x-torpor: {rootfs: /, sleep_after: 1h}
    command: [/usr/bin/python3, /srv/writer.py]
    volumes: ["./writer.py:/srv/writer.py:ro", "data:/data"]
    stop_grace_period: 1s
volumes:
  data: {driver: torpor, driver_opts: {size: 200m}}
`

// volumeMachine is a machine that has what volumes need.
func volumeMachine(t *testing.T) *machine {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("mkfs.ext4"), kerneltest.Program("e2fsck"))
	return newMachine(t)
}

func (m *machine) upOnVolume(file string) {
	m.t.Helper()
	m.file("writer.py", writer)
	m.compose(file)
	m.must("up", "-d")
}

// web connects to the service.
func (m *machine) web() *connection {
	m.t.Helper()
	return m.connect(m.ps()["web"].Address + ":8000")
}

// volumeLine is a volume as volume ls --json shows it.
type volumeLine struct {
	Name       string `json:"name"`
	SizeBytes  int64  `json:"size_bytes"`
	UsedBytes  int64  `json:"used_bytes"`
	Device     string `json:"device"`
	Format     string `json:"format"`
	Problem    string `json:"problem"`
	MountPoint string `json:"mount_point"`
	Log        struct {
		State  string `json:"state"`
		PID    int    `json:"pid"`
		Binary string `json:"binary"`
		Layout string `json:"layout"`
	} `json:"log"`
	UsedBy []string `json:"used_by"`
}

func (m *machine) volumes() map[string]volumeLine {
	m.t.Helper()
	var all []volumeLine
	out := m.must("volume", "ls", "--json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		m.t.Fatalf("volume ls --json: %v\n%s", err, out)
	}
	byName := map[string]volumeLine{}
	for _, v := range all {
		byName[v.Name] = v
	}
	return byName
}

func (m *machine) dataVolume() volumeLine {
	m.t.Helper()
	return m.volumes()[m.project+"_data"]
}

// TestVolumeKeepsData is the life of a service on a volume: it writes, sleeps
// with its file open, and goes on while the daemon is away; after down and up its
// data is there; after down -v nothing is.
func TestVolumeKeepsData(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			kerneltest.Require(t, kerneltest.Program("mkfs."+fs))
			m := volumeMachine(t)
			m.upOnVolume(strings.ReplaceAll(onVolume, "size: 200m", "size: 400m, fs: "+fs))
			c := m.web()
			c.want("/append", "1")
			v := m.dataVolume()
			if v.Log.State != "ok" || v.Log.Layout != "1+0" || v.Device == "" || v.Format != "formatted" || len(v.UsedBy) != 1 || v.UsedBytes < 4096 || v.SizeBytes != 400<<20 {
				t.Errorf("volume is %+v", v)
			}
			if names, err := os.ReadDir(v.MountPoint); err != nil || len(names) != 1 {
				t.Errorf("volume holds %v, %v; want the log alone", names, err)
			}
			m.must("sleep", "web")
			c.want("/append", "2")
			m.stopDaemon(syscall.SIGKILL)
			c.want("/append", "3")
			m.serve()
			c.want("/append", "4")
			if out := m.must("volume", "check", "--data", v.Name); !strings.Contains(out, "nothing is wrong") {
				t.Errorf("check says %s", out)
			}
			m.must("down")
			if left := m.dataVolume(); left.Device != "" || left.MountPoint != "" {
				t.Errorf("after down volume is %+v", left)
			}
			m.must("up", "-d")
			m.web().want("/append", "5")
			m.must("restart", "web")
			m.web().want("/append", "6")
			m.must("down", "-v")
			if left := m.volumes(); len(left) != 0 {
				t.Errorf("after down -v there are %+v", left)
			}
		})
	}
}

// TestVolumeServerKilled kills the process that serves the volume: the service
// sees errors, torpor volume ls says why, and the service's next start has all
// that was durable.
func TestVolumeServerKilled(t *testing.T) {
	m := volumeMachine(t)
	m.upOnVolume(onVolume)
	c := m.web()
	for i := range 10 {
		c.want("/append", strconv.Itoa(i+1))
	}
	before := m.dataVolume()
	if err := syscall.Kill(before.Log.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.eventually("another server runs", func() error {
		v := m.dataVolume()
		if v.Log.State != "ok" || v.Log.PID == before.Log.PID || !strings.Contains(v.Problem, "restart") {
			return fmt.Errorf("volume is %+v", v)
		}
		return nil
	})
	if answer := c.get("/append"); !strings.Contains(answer, "rror") {
		t.Errorf("without its volume the service says %q", answer)
	}
	m.must("restart", "web")
	m.web().want("/append", "11")
	if v := m.dataVolume(); v.Problem != "" {
		t.Errorf("after the restart volume is %+v", v)
	}
	events := m.must("events", "--json")
	if !strings.Contains(events, `"type":"volume"`) {
		t.Errorf("no event of a volume in\n%s", events)
	}
}

// TestVolumeAfterReboot ends everything that does not survive a reboot, and
// starts the daemon again.
func TestVolumeAfterReboot(t *testing.T) {
	m := volumeMachine(t)
	m.upOnVolume(strings.ReplaceAll(onVolume, "    stop_grace", "    restart: always\n    stop_grace"))
	m.web().want("/append", "1")
	m.stopDaemon(syscall.SIGKILL)
	for _, verb := range []string{"keeper", "volume"} {
		for _, pid := range m.processes(verb) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/torpor/", "/sys/fs/cgroup/pids/torpor/"} {
		groups, _ := filepath.Glob(pattern + m.project + "*/cgroup.procs")
		for _, group := range groups {
			pids, _ := os.ReadFile(group)
			for _, text := range strings.Fields(string(pids)) {
				pid, err := strconv.Atoi(text)
				if err != nil {
					t.Fatal(err)
				}
				_ = syscall.Kill(pid, syscall.SIGKILL) // the others end with pid 1
			}
		}
	}
	m.serve()
	m.eventually("the service has its data", func() error {
		answer, err := m.web().try("/append")
		if err != nil || answer != "2" {
			return fmt.Errorf("it says %q, %v", answer, err)
		}
		return nil
	})
}

// TestVolumeServerUpgrade has the server execute its binary again while the
// service writes: the service does not notice.
func TestVolumeServerUpgrade(t *testing.T) {
	m := volumeMachine(t)
	m.upOnVolume(onVolume)
	c := m.web()
	before := m.dataVolume()
	for i := range 20 {
		if i%5 == 2 {
			if err := syscall.Kill(before.Log.PID, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		c.want("/append", strconv.Itoa(i+1))
	}
	m.eventually("the server is followed again", func() error {
		v := m.dataVolume()
		if v.Log.State != "ok" || v.Log.PID != before.Log.PID || v.Device != before.Device || v.Problem != "" {
			return fmt.Errorf("volume is %+v, was %+v", v, before)
		}
		return nil
	})
	c.want("/append", "21")
	m.must("sleep", "web")
	c.want("/append", "22")
}

// TestVolumeServerOfAnotherBinary starts a daemon of another torpor while the
// service runs: it has the volume server execute that.
func TestVolumeServerOfAnotherBinary(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdcopy"))
	m := volumeMachine(t)
	m.upOnVolume(onVolume)
	c := m.web()
	c.want("/append", "1")
	before := m.dataVolume()
	m.must("volume", "snapshot", before.Name+"@one")
	m.must("volume", "clone", before.Name+"@one", "copy"+m.project)
	uri := strings.TrimSpace(m.must("volume", "export", "copy"+m.project, "--read-only"))
	m.stopDaemon(syscall.SIGTERM)
	m.install("torpor")
	m.serve()
	c.want("/append", "2")
	after := m.dataVolume()
	if after.Log.Binary == before.Log.Binary || after.Log.PID != before.Log.PID || after.Device != before.Device {
		t.Errorf("volume is %+v, was %+v; events: %s", after, before, m.must("events"))
	}
	if out, err := exec.Command("nbdcopy", uri, filepath.Join(m.dir, "image")).CombinedOutput(); err != nil {
		t.Errorf("read by NBD: %v: %s", err, out)
	}
	m.must("volume", "rm", "--force", "copy"+m.project)
	m.must("volume", "rm", before.Name+"@one")
	m.must("sleep", "web")
	c.want("/append", "3")
}

// TestVolumeSnapshotAndClone reads a clone beside its origin, which goes on.
func TestVolumeSnapshotAndClone(t *testing.T) {
	m := volumeMachine(t)
	m.upOnVolume(onVolume)
	c := m.web()
	c.want("/append", "1")
	name := m.project + "_data"
	m.must("volume", "snapshot", name+"@one")
	c.want("/append", "2")
	m.must("volume", "clone", name+"@one", "copy"+m.project)
	device := strings.TrimSpace(m.must("volume", "attach", "copy"+m.project))
	dir := filepath.Join(m.dir, "copy")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", device, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount clone: %v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || string(b) != "line\n" {
		t.Errorf("clone holds %q, %v", b, err)
	}
	if r := m.torpor("volume", "detach", "copy"+m.project); r.code == 0 || !strings.Contains(r.stderr, dir) {
		t.Errorf("detached while it is mounted: %s", r)
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if r := m.torpor("volume", "rm", "copy"+m.project); r.code != 3 || !strings.Contains(r.stderr, "--force") {
		t.Errorf("attached volume was removed: %s", r)
	}
	if r := m.torpor("volume", "rm", "--force", name); r.code != 3 || !strings.Contains(r.stderr, "torpor down") {
		t.Errorf("volume of a service was removed: %s", r)
	}
	m.must("volume", "rm", "--force", "copy"+m.project)
	m.must("volume", "rm", name+"@one")
	c.want("/append", "3")
}

// TestVolumeOnSeveralDisks has a layout with parity, in directories, and grows
// while it is used.
func TestVolumeOnSeveralDisks(t *testing.T) {
	m := volumeMachine(t)
	for _, d := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(m.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.upOnVolume(strings.ReplaceAll(onVolume, "size: 200m", "size: 400m, layout: 2+1, disks: ./a ./b ./c, fs: xfs"))
	c := m.web()
	c.want("/append", "1")
	m.must("volume", "resize", m.project+"_data", "600m")
	var stat syscall.Statfs_t
	if err := syscall.Statfs(m.dataVolume().MountPoint, &stat); err != nil || int64(stat.Blocks)*stat.Bsize < 450<<20 {
		t.Errorf("file system has %d bytes, %v", int64(stat.Blocks)*stat.Bsize, err)
	}
	c.want("/append", "2")
	if out := m.must("volume", "scrub", "--repair", m.project+"_data"); !strings.Contains(out, "nothing is wrong") {
		t.Errorf("scrub says %s", out)
	}
	m.must("down", "-v")
	for _, d := range []string{"a", "b", "c"} {
		if left, err := os.ReadDir(filepath.Join(m.dir, d)); err != nil || len(left) != 0 {
			t.Errorf("in %s is %v, %v", d, left, err)
		}
	}
}

// TestVolumeDiskLost loses a disk, goes on, and gets another one in its place. A
// check without a daemon and a server finds nothing wrong.
func TestVolumeDiskLost(t *testing.T) {
	m := volumeMachine(t)
	var disks []string
	for _, d := range []string{"a", "b", "c", "d"} {
		disks = append(disks, filepath.Join(m.dir, d))
		if err := os.Mkdir(disks[len(disks)-1], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.upOnVolume(strings.ReplaceAll(onVolume, "size: 200m", "size: 200m, layout: 2+1, disks: ./a ./b ./c"))
	name := m.project + "_data"
	m.web().want("/append", "1")
	m.must("down")
	m.stopServers()
	if err := os.RemoveAll(filepath.Join(disks[1], name+".volume")); err != nil {
		t.Fatal(err)
	}
	if out := m.must("volume", "check", "--data", name); !strings.Contains(out, "nothing is wrong") {
		t.Errorf("check without a daemon says %s", out)
	}
	m.serve()
	m.must("up", "-d")
	m.web().want("/append", "2")
	if v := m.dataVolume(); v.Log.State != "degraded" {
		t.Errorf("without a disk volume is %+v", v)
	}
	if out := m.must("volume", "ls"); !strings.Contains(out, "torpor volume disk replace") || !strings.Contains(out, disks[1]) {
		t.Errorf("volume ls says\n%s", out)
	}
	m.must("volume", "disk", "replace", name, disks[1], disks[3])
	if v := m.dataVolume(); v.Log.State != "ok" {
		t.Errorf("with another disk volume is %+v", v)
	}
	if left, err := os.ReadDir(disks[1]); err != nil || len(left) != 0 {
		t.Errorf("the lost disk left %v, %v", left, err)
	}
	m.must("volume", "disk", "add", name, disks[1])
	m.web().want("/append", "3")
	if out := m.must("volume", "check", "--data", name); !strings.Contains(out, "nothing is wrong") {
		t.Errorf("check says %s", out)
	}
	m.must("down")
	m.stopServers()
	// Another disk in the very place of a lost one.
	if err := os.RemoveAll(filepath.Join(disks[0], name+".volume")); err != nil {
		t.Fatal(err)
	}
	m.serve()
	if r := m.torpor("volume", "disk", "replace", name, disks[2], disks[2]); r.code != 3 || !strings.Contains(r.stderr, "needs another path") {
		t.Errorf("a disk that is in use was replaced by itself: %s", r)
	}
	m.must("volume", "disk", "replace", name, disks[0], disks[0])
	if v := m.dataVolume(); v.Log.State != "ok" {
		t.Errorf("with another disk in its place volume is %+v\n%s", v, m.must("volume", "inspect", name))
	}
	m.must("up", "-d")
	m.web().want("/append", "4")
}

// stopServers ends the daemon and the volume servers, as a clean end of the
// machine does.
func (m *machine) stopServers() {
	m.t.Helper()
	m.stopDaemon(syscall.SIGTERM)
	for _, pid := range m.processes("volume") {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			m.t.Fatal(err)
		}
	}
	m.eventually("volume servers end", func() error {
		if pids := m.processes("volume"); len(pids) > 0 {
			return fmt.Errorf("processes %v", pids)
		}
		return nil
	})
}

// TestVolumeDaemonKilledAnywhere kills the daemon at many moments of up and down.
// The next one goes on, and after down -v nothing is left.
func TestVolumeDaemonKilledAnywhere(t *testing.T) {
	m := volumeMachine(t)
	m.file("writer.py", writer)
	m.compose(onVolume)
	interrupted := func(after time.Duration, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := m.command(ctx, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		m.stopDaemon(syscall.SIGKILL)
		_ = cmd.Wait()
		m.serve()
	}
	for i := range 10 {
		after := time.Duration(i*40) * time.Millisecond
		interrupted(after, "up", "-d")
		m.must("up", "-d")
		m.web().want("/append", "1")
		interrupted(after, "down", "-t", "1")
		m.must("up", "-d")
		m.web().want("/append", "2")
		interrupted(after, "down", "-v", "-t", "1")
		if r := m.torpor("down", "-v", "-t", "1"); r.code != 0 && r.code != 5 {
			t.Fatalf("%s", r)
		}
		m.leftovers()
		if t.Failed() {
			t.Fatalf("after %s", after)
		}
	}
}

// TestVolumeRefusals are requests that can not be, each with what to do.
func TestVolumeRefusals(t *testing.T) {
	m := volumeMachine(t)
	full := m.file("full", strings.Repeat("x", 128<<20))
	for _, test := range []struct {
		code int
		want string
		args []string
	}{
		{3, "holds data; say --force", []string{"create", "full", "--size", "20m", "--disk", full}},
		{5, "no such directory, file or block device", []string{"create", "none", "--size", "20m", "--disk", filepath.Join(m.dir, "none")}},
		{2, "it is the same as", []string{"create", "twice", "--size", "20m", "--layout", "1+1", "--disk", full, "--disk", filepath.Join(m.dir, ".", "full")}},
		{5, "torpor volume ls", []string{"inspect", "none"}},
		{5, "torpor volume ls", []string{"attach", "none"}},
		{5, "torpor volume ls", []string{"rm", "none"}},
	} {
		if r := m.torpor(append([]string{"volume"}, test.args...)...); r.code != test.code || !strings.Contains(r.stderr, test.want) {
			t.Errorf("want exit code %d and %q of %s", test.code, test.want, r)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(m.state(), "logs", "*")); len(left) != 0 {
		t.Errorf("refused volumes left %v", left)
	}
	m.must("volume", "create", "full", "--size", "20m", "--disk", full, "--force")
	if r := m.torpor("volume", "create", "full", "--size", "20m"); r.code == 0 || !strings.Contains(r.stderr, "already exists") {
		t.Errorf("made twice: %s", r)
	}
	m.must("volume", "rm", "full")
	if _, err := os.Stat(full); err != nil {
		t.Errorf("a disk that users gave is gone: %v", err)
	}
}
