package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torpor/host"
)

// testKey seals the checkpoints of tests.
var testKey = &Key{1, 2, 3, 4}

// makeReady makes a ready checkpoint of a tree that comes to rest soon.
func (tree *testTree) makeReady(dir string) *DumpReport {
	tree.t.Helper()
	report, err := tree.tryReady(dir)
	// PostgreSQL listens before it has reaped the process that started it up.
	for tries := 0; errors.Is(err, host.ErrRefused) && strings.Contains(err.Error(), "zombie") && tries < 100; tries++ {
		time.Sleep(20 * time.Millisecond)
		report, err = tree.tryReady(dir)
	}
	if err != nil {
		tree.t.Fatalf("make ready checkpoint: %v", err)
	}
	tree.t.Logf("ready checkpoint: %d KB written, phases %v", report.WrittenBytes>>10, report.Phases)
	return report
}

func (tree *testTree) tryReady(dir string) (report *DumpReport, err error) {
	return tree.tryReadyAt(dir, nil)
}

// tryReadyAt calls at between the steps.
func (tree *testTree) tryReadyAt(dir string, at func(string) error) (report *DumpReport, err error) {
	o := ReadyOptions{Dir: dir, Key: testKey, Holder: tree.holder, List: ContainerTree(tree.holder.PID), Own: filepath.Join(tree.dir, "checkpoint"), Verify: true, At: at}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		report, err = DumpReady(o)
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return report, err
		}
	}
}

// restoreReady restores a ready checkpoint in namespaces of its own, below
// another init.
func restoreReady(t *testing.T, dir string, setUp func(*exec.Cmd)) *testTree {
	t.Helper()
	tree := startTree(t, setUp)
	tree.loopbackUp()
	begun := time.Now()
	report, err := tree.tryRestoreReady(dir)
	if err != nil {
		t.Fatalf("restore ready checkpoint: %v", err)
	}
	t.Logf("restored in %s, of it %v", time.Since(begun), report.Phases)
	return tree
}

func (tree *testTree) tryRestoreReady(dir string) (*RestoreReport, error) {
	return tree.tryRestoreReadyAt(dir, nil)
}

// tryRestoreReadyAt calls at between the steps.
func (tree *testTree) tryRestoreReadyAt(dir string, at func(string) error) (*RestoreReport, error) {
	spec, err := ReadReady(dir, testKey)
	if err != nil {
		return nil, err
	}
	stub, err := ArmReady(dir, spec, filepath.Join(tree.dir, "checkpoint"), nil, ArmOptions{Holder: tree.holder, Join: tree.holder.PID})
	if err != nil {
		return nil, err
	}
	tracer := newTracer(tree.t)
	report, err := stub.Restore(tracer, RestoreOptions{At: at})
	if err != nil {
		return nil, err
	}
	return report, errors.Join(awaitFree(stub.PID), tree.holder.Release())
}

const readyServer = `
import hashlib, http.server, os, sys
data = bytearray(os.urandom(1<<20)*20)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    count = 0
    def log_message(self, *args): pass
    def do_GET(self):
        Handler.count += 1
        for at in range(0, int(self.path[1:] or 0) << 20, 4096):
            data[at] ^= 1
        body = b"%d %d" % (Handler.count, len(data))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
`

// TestReadyCheckpoint makes one, lets the process serve, kills it, and restores
// it several times, each of which counts from the start, sleeps and wakes, and
// writes only what it has changed.
func TestReadyCheckpoint(t *testing.T) {
	needProgram(t, python)
	tree := startTree(t, nil, python, "-u", "-c", readyServer)
	tree.loopbackUp()
	tree.waitListening(8000)
	dir := filepath.Join(t.TempDir(), "ready")
	tree.makeReady(dir)
	c := tree.dial("tcp", "127.0.0.1:8000")
	c.wantGet("/", "1 20971520")
	c.wantGet("/", "2 20971520")
	tree.init.Process.Kill()
	for range 2 {
		clone := restoreReady(t, dir, nil)
		c := clone.dial("tcp", "127.0.0.1:8000")
		c.wantGet("/", "1 20971520")
		for i, test := range []struct {
			path string
			most int64 // MB written
			base bool  // its heap still stands on the ready checkpoint
			own  uint64
		}{{"/", 6, true, 0}, {"/1", 6, true, 0}, {"/", 16, true, 16 << 20}, {"/", 6, true, 16 << 20}, {"/8", 60, false, 0}, {"/8", 16, false, 0}} {
			c.wantGet(test.path, fmt.Sprintf("%d 20971520", i+2))
			time.Sleep(50 * time.Millisecond)
			report := clone.sleep(DumpOptions{Verify: true, OwnMostBytes: test.own})
			if got := standsOnBase(report.Spec, 20<<20); got != test.base {
				t.Errorf("after %s the heap stands on the ready checkpoint: %v, want %v", test.path, got, test.base)
			}
			if report.WrittenBytes > test.most<<20 {
				t.Errorf("after %s: %d bytes written, want at most %d MB", test.path, report.WrittenBytes, test.most)
			}
			woken := clone.wake()
			t.Logf("after %s: slept with %d KB, woke in %v", test.path, report.WrittenBytes>>10, woken.Phases)
		}
		c.wantGet("/", "8 20971520")
	}
}

// standsOnBase reports whether a mapping of at least so many bytes does.
func standsOnBase(s *Spec, lenBytes uint64) bool {
	for _, v := range s.Processes[0].VMAs {
		if v.Kind == VMABase && v.Len() >= lenBytes {
			return true
		}
	}
	return false
}

// TestDamagedReadyCheckpoint restores nothing from what is not as it was made.
func TestDamagedReadyCheckpoint(t *testing.T) {
	tree := startTree(t, nil, "/bin/sh", "-c", "echo ready; exec sleep 1000")
	tree.waitOutput("ready")
	dir := filepath.Join(t.TempDir(), "ready")
	tree.makeReady(dir)
	meta, err := os.ReadFile(filepath.Join(dir, metaName))
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) func() error {
		return func() error { return os.WriteFile(filepath.Join(dir, metaName), b, 0o600) }
	}
	foreign, err := LoadSpec(meta, testKey)
	if err != nil {
		t.Fatal(err)
	}
	resealed, err := foreign.Encode(&Key{9})
	if err != nil {
		t.Fatal(err)
	}
	foreign.Kernel = "Linux version 1.0"
	otherKernel, err := foreign.Encode(testKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckReady(dir, testKey); err != nil {
		t.Errorf("check: %v", err)
	}
	for _, test := range []struct {
		name   string
		damage func() error
		want   error
	}{
		{"cut", write(meta[:len(meta)-1]), host.ErrCorrupt},
		{"empty", write(nil), host.ErrCorrupt},
		{"of another machine", write(resealed), host.ErrCorrupt},
		{"of another kernel", write(otherKernel), host.ErrUnsupported},
		{"image touched", func() error {
			return errors.Join(write(meta)(), os.Chtimes(ImagePath(dir), time.Now(), time.Now()))
		}, host.ErrCorrupt},
		{"image cut", func() error { return os.Truncate(ImagePath(dir), 1<<20) }, host.ErrCorrupt},
		{"image gone", func() error { return os.Remove(ImagePath(dir)) }, host.ErrCorrupt},
		{"gone", func() error { return os.Remove(filepath.Join(dir, metaName)) }, host.ErrNotFound},
	} {
		if err := test.damage(); err != nil {
			t.Fatal(err)
		}
		if err := CheckReady(dir, testKey); !errors.Is(err, test.want) {
			t.Errorf("%s: check: %v, want %v", test.name, err, test.want)
		}
		fresh := startTree(t, nil)
		if _, err := fresh.tryRestoreReady(dir); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if fresh.alive() {
			t.Errorf("%s: a process runs", test.name)
		}
	}
}

// TestCheckReady finds a changed byte that restores do not look for, in any
// file.
func TestCheckReady(t *testing.T) {
	tree := startTree(t, nil, python, "-u", "-c", `
import os, time
f = os.memfd_create("kept")
os.write(f, b"kept " * 10000)
print("ready")
time.sleep(1000)`)
	tree.waitOutput("ready")
	dir := filepath.Join(t.TempDir(), "ready")
	tree.makeReady(dir)
	spec, err := ReadReady(dir, testKey)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range spec.Ready.Sums {
		if seen[s.File] {
			continue
		}
		seen[s.File] = true
		path := filepath.Join(dir, s.File)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		flip := func() {
			_, err := f.ReadAt(b, s.Offset+s.LenBytes/2)
			b[0] ^= 1
			if _, err2 := f.WriteAt(b, s.Offset+s.LenBytes/2); err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
		flip()
		if err := CheckReady(dir, testKey); !errors.Is(err, host.ErrCorrupt) {
			t.Errorf("a changed byte of %s: %v", s.File, err)
		}
		flip()
		f.Close()
	}
	if err := CheckReady(dir, testKey); err != nil || !seen[PagesName] || len(seen) < 2 {
		t.Errorf("as it was: %v; files %v", err, seen)
	}
}
