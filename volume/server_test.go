package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torpor/block"
	"torpor/host"
	"torpor/internal/kerneltest"
)

// lab is a log with its server.
type lab struct {
	t      *testing.T
	config Config
	client *Client
	end    context.CancelFunc
	ended  chan error
}

// newLab makes a log on directories, which has no volumes yet.
func newLab(t *testing.T, layout host.Layout, disks ...string) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "v") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, config: Config{StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Log: NewLogID()}}
	t.Cleanup(func() {
		l.stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	state := &State{ID: l.config.Log, Phase: New, Layout: layout}
	for i, d := range disks {
		if d == "" {
			disks[i] = filepath.Join(dir, fmt.Sprint(i))
			if err := os.Mkdir(disks[i], 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if state.Disks, err = PlanDisks(disks, "data", DiskBytesFor(64<<20, layout, len(disks))); err != nil {
		t.Fatal(err)
	}
	if err := state.Save(l.config.StateDir); err != nil {
		t.Fatal(err)
	}
	l.serve()
	return l
}

// serve starts a server, in this process.
func (l *lab) serve() {
	l.t.Helper()
	server, err := NewServer(l.config)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.end, l.ended = cancel, make(chan error, 1)
	go func() { l.ended <- server.Serve(ctx) }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if l.client, err = Dial(ctx, SocketPath(l.config.RunDir, l.config.Log)); err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatal(err)
		}
	}
}

// stop ends the server.
func (l *lab) stop() {
	l.t.Helper()
	if l.end == nil {
		return
	}
	l.client.Close()
	l.end()
	if err := <-l.ended; err != nil {
		l.t.Error(err)
	}
	l.end = nil
}

// create makes the first volume.
func (l *lab) create() {
	l.t.Helper()
	if err := l.client.Create(context.Background(), CreateRequest{Volume: "data", SizeBytes: 64 << 20, FS: host.Ext4}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) status() Status {
	l.t.Helper()
	s, err := l.client.Status(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// run runs a program.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", args, err, out)
	}
	return string(out)
}

// TestExportsComeBack writes by NBD, ends the server, and reads by NBD from the
// next one, which makes the same exports.
func TestExportsComeBack(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdcopy"))
	l := newLab(t, host.Layout{Data: 2, Parity: 1}, "", "", "")
	l.create()
	ctx := context.Background()
	e, err := l.client.Export(ctx, "data", ExportSpec{})
	if err != nil {
		t.Fatal(err)
	}
	content := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(content, []byte(strings.Repeat("0123456789abcdef", 1<<18)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdcopy", "--flush", content, e.URI)
	again, err := l.client.Export(ctx, "data", ExportSpec{})
	if err != nil || again.URI != e.URI {
		t.Errorf("exported again at %s, %v, was at %s", again.URI, err, e.URI)
	}
	l.stop()
	l.serve()
	v := l.status().Volumes[0]
	if len(v.Exports) != 1 || v.Exports[0].URI != e.URI || v.Format != Foreign {
		t.Errorf("after a restart volume is %+v", v)
	}
	back := filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", e.URI, back)
	run(t, "cmp", "-n", "4194304", content, back)
	if err := l.client.Unexport(ctx, "data", ""); err != nil {
		t.Fatal(err)
	}
	if err := l.client.Unexport(ctx, "data", ""); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("ended twice: %v", err)
	}
	if err := l.client.Remove(ctx, "data", "", false); err != nil {
		t.Fatal(err)
	}
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
	l.end = nil
	state, err := LoadState(l.config.StateDir, l.config.Log)
	if err != nil || state.Phase != Removed {
		t.Fatalf("state is %+v, %v", state, err)
	}
	for _, d := range state.Disks {
		if _, err := os.Stat(d.Made); !os.IsNotExist(err) {
			t.Errorf("%s: %v", d.Made, err)
		}
	}
	if _, err := NewServer(l.config); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("a removed log is served: %v", err)
	}
}

// TestVolumesOfALog goes through what can be done with volumes, and their errors.
func TestVolumesOfALog(t *testing.T) {
	l := newLab(t, host.DefaultLayout, "")
	ctx := context.Background()
	if err := l.client.Snapshot(ctx, "data", "one"); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("snapshot of nothing: %v", err)
	}
	l.create()
	for _, test := range []struct {
		name string
		do   func() error
		want error
	}{
		{"create twice", func() error { return l.client.Create(ctx, CreateRequest{Volume: "data", SizeBytes: 1}) }, host.ErrExists},
		{"snapshot", func() error { return l.client.Snapshot(ctx, "data", "one") }, nil},
		{"snapshot twice", func() error { return l.client.Snapshot(ctx, "data", "one") }, host.ErrExists},
		{"snapshot of none", func() error { return l.client.Snapshot(ctx, "none", "one") }, host.ErrNotFound},
		{"odd snapshot", func() error { return l.client.Snapshot(ctx, "data", "a/b") }, host.ErrInvalid},
		{"clone", func() error { return l.client.Clone(ctx, "data", "one", "copy") }, nil},
		{"clone twice", func() error { return l.client.Clone(ctx, "data", "one", "copy") }, host.ErrExists},
		{"clone of none", func() error { return l.client.Clone(ctx, "data", "two", "other") }, host.ErrNotFound},
		{"grow", func() error { return l.client.Resize(ctx, "data", 65<<20+1, false) }, nil},
		{"shrink", func() error { return l.client.Resize(ctx, "data", 1<<20, false) }, host.ErrRefused},
		{"shrink by force", func() error { return l.client.Resize(ctx, "copy", 1<<20, true) }, nil},
		{"remove none", func() error { return l.client.Remove(ctx, "none", "", false) }, host.ErrNotFound},
		{"remove no snapshot", func() error { return l.client.Remove(ctx, "data", "two", false) }, host.ErrNotFound},
		{"replace no disk", func() error { return l.client.ReplaceDisk(ctx, "/none", DiskSpec{Path: "/other"}, func(Progress) {}) }, host.ErrNotFound},
		{"add a disk twice", func() error { return l.client.AddDisk(ctx, DiskSpec{Path: l.status().Disks[0].Path}) }, host.ErrExists},
		{"remove with snapshot", func() error { return l.client.Remove(ctx, "data", "", false) }, nil},
	} {
		if err := test.do(); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	l.stop()
	l.serve()
	s := l.status()
	if len(s.Volumes) != 1 || s.Volumes[0].Name != "copy" || s.Volumes[0].SizeBytes != 1<<20 || s.State != OK {
		t.Errorf("log is %+v", s)
	}
}

// TestFormatsOnce asks whether a file system may be made, in all states.
func TestFormatsOnce(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdcopy"))
	l := newLab(t, host.DefaultLayout, "")
	l.create()
	ctx := context.Background()
	begin := func() error { return l.client.BeginFormat(ctx, "data", host.XFS) }
	if err := l.client.EndFormat(ctx, "data"); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("ended before it was begun: %v", err)
	}
	if err := errors.Join(begin(), begin()); err != nil { // the first was not finished
		t.Fatal(err)
	}
	l.stop()
	l.serve()
	if err := errors.Join(begin(), l.client.EndFormat(ctx, "data")); err != nil {
		t.Fatal(err)
	}
	if err := begin(); !errors.Is(err, host.ErrRefused) {
		t.Errorf("formatted again: %v", err)
	}
	if v := l.status().Volumes[0]; v.FS != host.XFS || v.Format != Formatted {
		t.Errorf("volume is %+v", v)
	}
	// What others had is not formatted, whatever it holds.
	if err := errors.Join(l.client.Snapshot(ctx, "data", "one"), l.client.Clone(ctx, "data", "one", "copy")); err != nil {
		t.Fatal(err)
	}
	if err := l.client.BeginFormat(ctx, "copy", host.XFS); !errors.Is(err, host.ErrRefused) {
		t.Errorf("clone is formatted: %v", err)
	}
}

// TestUnknownContentIsNotFormatted has a volume with data of which the state
// knows nothing, as after a restore of the state directory from a backup.
func TestUnknownContentIsNotFormatted(t *testing.T) {
	l := newLab(t, host.DefaultLayout, "")
	l.create()
	l.stop()
	l.write("data")
	l.serve()
	if err := l.client.BeginFormat(context.Background(), "data", host.Ext4); !errors.Is(err, host.ErrRefused) {
		t.Errorf("formatted: %v", err)
	}
}

// write writes a block of a volume, behind the server's back.
func (l *lab) write(volume string) {
	l.t.Helper()
	state, err := LoadState(l.config.StateDir, l.config.Log)
	if err != nil {
		l.t.Fatal(err)
	}
	var disks []logDisk
	for _, spec := range state.Disks {
		d, err := openDisk(spec, false, nil)
		if err != nil {
			l.t.Fatal(err)
		}
		disks = append(disks, logDisk{spec.Path, d})
	}
	log, err := openLog(disks, func(string) {})
	if err != nil {
		l.t.Fatal(err)
	}
	v, err := log.OpenVolume(volume)
	if err == nil {
		err = v.WriteAt(block.AlignedBuffer(block.BlockBytes), 8<<20, 0)
	}
	if err := errors.Join(err, v.Close(), log.Close()); err != nil {
		l.t.Fatal(err)
	}
}

// TestStateAndLogDiffer has volumes that only one of the two knows.
func TestStateAndLogDiffer(t *testing.T) {
	l := newLab(t, host.DefaultLayout, "")
	l.create()
	ctx := context.Background()
	if err := errors.Join(l.client.Snapshot(ctx, "data", "one"), l.client.Clone(ctx, "data", "one", "copy")); err != nil {
		t.Fatal(err)
	}
	l.stop()
	state, err := LoadState(l.config.StateDir, l.config.Log)
	if err != nil {
		t.Fatal(err)
	}
	delete(state.Volumes, "copy")
	state.Volumes["gone"] = &VolumeState{Exports: []ExportSpec{{Listen: "unix:/nowhere/x"}}}
	if err := state.Save(l.config.StateDir); err != nil {
		t.Fatal(err)
	}
	l.serve()
	if err := l.client.BeginFormat(ctx, "copy", host.Ext4); !errors.Is(err, host.ErrRefused) {
		t.Errorf("a volume that the state did not know is formatted: %v", err)
	}
	if err := l.client.Detach(ctx, "gone", User); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("a volume that the log does not know is there: %v", err)
	}
}

// TestServerSaysWhyItFails has a log without enough disks: the server answers,
// and opens the log when they are back.
func TestServerSaysWhyItFails(t *testing.T) {
	l := newLab(t, host.Layout{Data: 1, Parity: 1}, "", "")
	l.create()
	l.stop()
	state, err := LoadState(l.config.StateDir, l.config.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range state.Disks {
		if err := os.Rename(d.Made, d.Made+".away"); err != nil {
			t.Fatal(err)
		}
	}
	l.serve()
	s := l.status()
	if s.State != Failed || !strings.Contains(s.Reason, state.Disks[0].Path) || len(s.Volumes) != 1 {
		t.Errorf("without disks log is %+v", s)
	}
	if _, err := l.client.Attach(context.Background(), "data", User); err == nil {
		t.Error("attached without disks")
	}
	if err := os.Rename(state.Disks[1].Made+".away", state.Disks[1].Made); err != nil {
		t.Fatal(err)
	}
	if err := l.client.Retry(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = l.status()
	if s.State != Degraded || !strings.Contains(s.Reason, "torpor volume disk replace") {
		t.Errorf("with one of two disks log is %+v", s)
	}
	for _, d := range s.Disks {
		if d.Path == state.Disks[0].Path && d.State != "missing" {
			t.Errorf("missing disk is %+v", d)
		}
	}
}

// TestOneServerALog refuses a second one, and a check that opens the disks.
func TestOneServerALog(t *testing.T) {
	l := newLab(t, host.DefaultLayout, "")
	l.create()
	if _, err := NewServer(l.config); !errors.Is(err, host.ErrExists) {
		t.Errorf("served twice: %v", err)
	}
	ctx := context.Background()
	if _, err := CheckOffline(ctx, l.config.StateDir, "data", true, func(Progress) {}); !errors.Is(err, host.ErrExists) {
		t.Errorf("checked beside a server: %v", err)
	}
	l.stop()
	if _, err := CheckOffline(ctx, l.config.StateDir, "none", true, func(Progress) {}); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("checked nothing: %v", err)
	}
	before := sums(t, l)
	report, err := CheckOffline(ctx, l.config.StateDir, "data", true, func(Progress) {})
	if err != nil || !report.OK() {
		t.Errorf("check says %+v, %v", report, err)
	}
	if after := sums(t, l); after != before {
		t.Error("an offline check wrote to the disks")
	}
}

// sums is the content of the disks, in short.
func sums(t *testing.T, l *lab) string {
	t.Helper()
	state, err := LoadState(l.config.StateDir, l.config.Log)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, "sh", "-c", "find "+state.Disks[0].Made+" -type f | sort | xargs sha256sum")
}

// TestJobs follows jobs, of which there is one at a time.
func TestJobs(t *testing.T) {
	l := newLab(t, host.Layout{Data: 2, Parity: 1}, "", "", "")
	l.create()
	ctx := context.Background()
	for _, f := range []func() (Report, error){
		func() (Report, error) { return l.client.Scrub(ctx, true, func(Progress) {}) },
		func() (Report, error) { return l.client.Check(ctx, true, func(Progress) {}) },
		func() (Report, error) { return l.client.Check(ctx, false, func(Progress) {}) },
	} {
		if r, err := f(); err != nil || !r.OK() || r.Summary() != "nothing is wrong" {
			t.Errorf("report is %+v, %v", r, err)
		}
	}
}

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	s := &State{ID: NewLogID(), Phase: Ready, Layout: host.Layout{Data: 4, Parity: 2}, Disks: []DiskSpec{{Path: "/a", Kind: Directory, Made: "/a/x.volume", SizeBytes: 4096}},
		Volumes: map[string]*VolumeState{"data": {Holders: []Holder{User}, Exports: []ExportSpec{{Listen: "tcp:1.2.3.4:5", ReadOnly: true}}, FS: host.Btrfs, Format: Formatting}}}
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
	back, err := LoadState(dir, s.ID)
	if err != nil || back.Layout != s.Layout || len(back.Disks) != 1 || back.Disks[0] != s.Disks[0] || back.Volumes["data"].Exports[0] != s.Volumes["data"].Exports[0] {
		t.Errorf("read back as %+v, %v", back, err)
	}
	if _, err := LoadState(dir, "../x"); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("odd name: %v", err)
	}
	if _, err := LoadState(dir, NewLogID()); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("unknown log: %v", err)
	}
	for text, want := range map[string]error{"{": host.ErrCorrupt, `{"version": 2}`: host.ErrUnsupported, `{"version": 1, "id": "0000000000000000"}`: host.ErrCorrupt} {
		if err := os.WriteFile(statePath(dir, s.ID), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadState(dir, s.ID); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}
