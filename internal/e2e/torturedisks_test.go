package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ground is a file system of its own, on which a disk lies that is to fail.
type ground struct {
	m      *machine
	device string
	dir    string
}

// groundBytes is the size of a ground for one disk.
const groundBytes = 256 << 20

// newGround makes and mounts one for the time of the test.
func newGround(m *machine, name string, sizeBytes int64) *ground {
	m.t.Helper()
	image := m.file(name+".image", "")
	if err := os.Truncate(image, sizeBytes); err != nil {
		m.t.Fatal(err)
	}
	g := &ground{m: m, device: m.loopDisk(image)}
	m.mkfs("ext4", g.device)
	g.dir = m.mounted(g.device, name)
	return g
}

// shutDown lets all that is asked of it fail, as a cable that is pulled.
func (g *ground) shutDown() { g.m.sh("xfs_io", "-x", "-c", "shutdown", g.dir) }

// makeReadOnly has the file system find an error of its own.
func (g *ground) makeReadOnly() {
	g.m.t.Helper()
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(g.device), "trigger_fs_error")
	g.m.sh("mount", "-o", "remount,errors=remount-ro", g.dir)
	if err := os.WriteFile(trigger, []byte("for a test"), 0); err != nil {
		g.m.t.Fatal(err)
	}
}

// fill leaves no space.
func (g *ground) fill() {
	g.m.t.Helper()
	f, err := os.Create(filepath.Join(g.dir, "filling"))
	if err != nil {
		g.m.t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(b)
	}
}

// delay lets all writes wait for a moment.
func (g *ground) delay(pause time.Duration) {
	g.m.t.Helper()
	g.m.sh("fsfreeze", "-f", g.dir)
	time.Sleep(pause)
	g.m.sh("fsfreeze", "-u", g.dir)
}

// comeBack mounts it again, as it was.
func (g *ground) comeBack() {
	g.m.t.Helper()
	g.m.eventually("nobody uses "+g.dir, func() error { return syscall.Unmount(g.dir, 0) })
	g.m.sh("mount", g.device, g.dir)
}

// diskSet are six disks and two spare ones, of one kind. Disks 0 and 1 lie on
// grounds; corrupt damages disk 2.
type diskSet struct {
	disks   []string
	spare   []string
	grounds []*ground
	create  []string // arguments of volume create
	fail    []func() // disks 0 and 1
	corrupt func()
}

// scatter overwrites blocks of a file from begin on, as a disk that is wrong.
func scatter(t *testing.T, path string, begin int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for at := begin; at < info.Size(); at += 16 << 10 {
		if _, err := f.WriteAt([]byte("\x5anot what it was\xa5"), at+rand.Int64N(8<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// tortureDiskBytes is the size of each; its superblocks and journal are before
// tortureSlots.
const tortureDiskBytes, tortureSlots = 96 << 20, 4 << 20

// files are disks that are files.
func files(m *machine) diskSet {
	set := diskSet{disks: m.fileDisks(8, tortureDiskBytes)}
	for i := range 2 {
		g := newGround(m, fmt.Sprintf("ground%d", i), groundBytes)
		set.disks[i] = filepath.Join(g.dir, "disk")
		m.file(fmt.Sprintf("ground%d/disk", i), "")
		if err := os.Truncate(set.disks[i], tortureDiskBytes); err != nil {
			m.t.Fatal(err)
		}
		set.grounds = append(set.grounds, g)
	}
	set.disks, set.spare = set.disks[:6], set.disks[6:]
	set.fail = []func(){set.grounds[0].shutDown, set.grounds[1].makeReadOnly}
	set.corrupt = func() { scatter(m.t, set.disks[2], tortureSlots) }
	return set
}

// devices are disks that are block devices.
func devices(m *machine) diskSet {
	set := files(m)
	below := set.disks[2]
	for i, path := range set.disks {
		set.disks[i] = m.loopDisk(path)
	}
	for i, path := range set.spare {
		set.spare[i] = m.loopDisk(path)
	}
	set.fail[1] = set.grounds[1].shutDown
	set.corrupt = func() { scatter(m.t, below, tortureSlots) } // both see the same pages
	return set
}

// directories are disks that are made in directories.
func directories(m *machine) diskSet {
	var set diskSet
	for i := range 2 {
		g := newGround(m, fmt.Sprintf("ground%d", i), groundBytes)
		set.grounds, set.disks = append(set.grounds, g), append(set.disks, g.dir)
	}
	for i := range 6 {
		dir := filepath.Join(m.dir, fmt.Sprintf("dir%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
		set.disks = append(set.disks, dir)
	}
	set.disks, set.spare = set.disks[:6], set.disks[6:]
	set.create = []string{"--disk-size", "192m"} // most of it not written when the file system is full
	set.fail = []func(){set.grounds[0].shutDown, set.grounds[1].fill}
	set.corrupt = func() {
		chunks, err := filepath.Glob(filepath.Join(set.disks[2], "*.volume", "0*"))
		if err != nil || len(chunks) < 2 {
			m.t.Fatalf("chunks %v, %v", chunks, err)
		}
		for _, chunk := range chunks[1:] {
			scatter(m.t, chunk, 0)
		}
	}
	return set
}

// TestTortureDisks has fio on both exports of a volume while a disk is slow,
// another is corrupted and scrubbed, and two fail, each in its way, and are
// replaced. fio sees no error, and people are told what is the matter.
func TestTortureDisks(t *testing.T) {
	for name, make := range map[string]func(*machine) diskSet{"files": files, "devices": devices, "directories": directories} {
		t.Run(name, func(t *testing.T) {
			m := tortureMachine(t)
			set := make(m)
			r := newRig(m, "200m", set.disks, set.create...)
			loads := []*load{
				beginLoad(t, "block device", 0, onDevice(r.attach())...),
				beginLoad(t, "NBD", 100<<20, onNBD(r.export())...),
			}
			goesOn := func() {
				for _, l := range loads {
					l.goesOn(m)
				}
			}
			goesOn()
			set.grounds[0].delay(time.Second)
			goesOn()
			set.corrupt()
			if out := m.must("volume", "scrub", "--repair", r.name); !strings.Contains(out, "all repaired") {
				t.Errorf("scrub of a corrupted disk says %s", out)
			}
			r.whole()
			for i, fail := range set.fail {
				fail()
				r.awaitOut(set.disks[i])
				goesOn()
			}
			if refused := m.torpor("volume", "disk", "replace", r.name, set.disks[3], set.spare[0]); refused.code != 3 || !strings.Contains(refused.stderr, "that are out") {
				t.Errorf("replacing a third disk would lose all data: %s", refused)
			}
			for i, spare := range set.spare {
				m.must("volume", "disk", "replace", r.name, set.disks[i], spare)
			}
			if v := r.inspect(); v.Log.State != "ok" || v.disk(set.disks[0]).State != "" || v.disk(set.spare[0]).State != "up" {
				t.Errorf("with other disks volume is %+v", v)
			}
			r.whole()
			for _, l := range loads {
				l.end()
			}
			r.whole()
		})
	}
}

// awaitOut waits until people are told that a disk is out, and why.
func (r *rig) awaitOut(path string) {
	r.t.Helper()
	r.eventually("disk "+path+" is out", func() error {
		v := r.inspect()
		if d := v.disk(path); d.State != "out" || d.Reason == "" || v.Log.State != "degraded" || !strings.Contains(v.Log.Reason, "torpor volume disk replace") {
			return fmt.Errorf("volume is %+v", v)
		}
		return nil
	})
	r.t.Logf("disk %s is out: %s", path, r.inspect().disk(path).Reason)
}
