package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// readyProgram takes a while to start, says when, and tells of itself: when it
// was started, how many requests it has had, and what its hooks were.
const readyProgram = `
import http.server, os, random, ssl, sys, time
random.random(), ssl.RAND_bytes(1)
heap = os.urandom(1 << 20) * 20
time.sleep(0.5)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count, hooks = 0, []
    def log_message(self, *args): pass
    def do_POST(self):
        Handler.hooks.append(self.path.strip("/"))
        self.answer("done", 500 if "FAIL" in os.environ else 200)
    def do_GET(self):
        if self.path == "/exit":
            os._exit(3)
        Handler.count += 1
        answers = {"/count": Handler.count, "/started": started, "/hooks": " ".join(Handler.hooks), "/name": os.uname().nodename,
                   "/clock": time.monotonic_ns(), "/wall": time.time_ns(), "/machine": open("/etc/machine-id").read().strip() if os.path.exists("/etc/machine-id") else "",
                   "/random": "%s %s" % (random.getrandbits(64), ssl.RAND_bytes(8).hex())}
        self.answer(str(answers.get(self.path, "ok")))
    def answer(self, text, code=200):
        body = text.encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
started, marker = time.time_ns(), "marker-of-the-init"
print("started", flush=True)
exec(os.environ.get("EXTRA", ""))
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
`

const readyCompose = `
services:
  web:
    command: [python3, -u, /app/server.py]
    volumes: ["./app:/app"]
    environment: {COLOR: red}
    restart: always
    x-torpor:
      rootfs: /
      checkpoint: ready
      sleep_after: 1h
      verify: true
`

// upReady starts the service and waits for its ready checkpoint.
func (m *machine) upReady(compose string) *connection {
	m.t.Helper()
	m.file("app/server.py", readyProgram)
	m.compose(compose)
	m.must("up", "-d")
	m.awaitEvents("checkpoint", "", 1)
	return m.connectWeb()
}

func (m *machine) connectWeb() *connection {
	m.t.Helper()
	return m.connect(m.ps()["web"].Address + ":8000")
}

// event is a line of events --json.
type event struct {
	Type   string            `json:"type"`
	Reason string            `json:"reason"`
	Attrs  map[string]string `json:"attrs"`
}

// events returns the events of a type whose reason has a text.
func (m *machine) events(what, reason string) []event {
	m.t.Helper()
	var found []event
	decoder := json.NewDecoder(strings.NewReader(m.must("events", "--json")))
	for {
		var e event
		if err := decoder.Decode(&e); err == io.EOF {
			return found
		} else if err != nil {
			m.t.Fatal(err)
		}
		if e.Type == what && strings.Contains(e.Reason, reason) {
			found = append(found, e)
		}
	}
}

// awaitEvents waits for the nth event.
func (m *machine) awaitEvents(what, reason string, n int) {
	m.t.Helper()
	m.eventually(fmt.Sprintf("%d events %s", n, what), func() error {
		if found := m.events(what, reason); len(found) < n {
			return fmt.Errorf("there are %d in %s", len(found), m.must("events", "--json"))
		}
		return nil
	})
}

// TestReadyStart sends fifty first requests while a service starts. One
// checkpoint is made, before any of them is let in: nothing of them is in it.
// The process that was checkpointed answers them; later starts go on where it
// was, without starting again.
func TestReadyStart(t *testing.T) {
	m := newMachine(t)
	const token = "Tok3n-of-the-first-request-9d1f"
	m.file("app/server.py", readyProgram)
	m.compose(readyCompose)
	m.must("up", "-d")
	address := m.ps()["web"].Address + ":8000"
	var asking sync.WaitGroup
	answers := make([]string, 50)
	for i := range answers {
		c := m.connect(address)
		asking.Go(func() { answers[i], _ = c.try(fmt.Sprintf("/%s-%d", token, i)) })
	}
	asking.Wait()
	for i, answer := range answers {
		if answer != "ok" {
			t.Errorf("request %d: %q", i, answer)
		}
	}
	if n := len(m.events("checkpoint", "")); n != 1 {
		t.Errorf("%d checkpoints were made", n)
	}
	c := m.connect(address)
	c.want("/count", "51")
	started := c.get("/started")
	dir := filepath.Join(m.state(), "ready", m.project, "web")
	if m.holds(dir, token) {
		t.Error("the checkpoint holds a first request")
	}
	if !m.holds(dir, "marker-of-the-init") {
		t.Error("the checkpoint does not hold the program: the search is of no use")
	}
	var clock string
	for i := range 3 {
		m.must("restart", "web")
		c := m.connect(address)
		c.want("/count", "1")
		c.want("/started", started)
		now := c.get("/clock")
		if len(now) < len(clock) || len(now) == len(clock) && now <= clock {
			t.Errorf("in start %d the clock went back", i)
		}
		clock = now
		m.must("sleep", "web")
		c.want("/count", "4")
	}
	c = m.connect(address)
	if _, err := c.try("/exit"); err == nil {
		t.Error("it did not end")
	}
	m.awaitEvents("start", "from its ready checkpoint", 4)
	m.connect(address).want("/started", started)
	m.must("down")
	m.must("up", "-d")
	m.connectWeb().want("/started", started)
	if n := strings.Count(m.must("logs", "web"), "started"); n != 0 {
		t.Errorf("the new container started %d times", n)
	}
	if s := m.ps()["web"]; s.ColdStart < 400*time.Millisecond || s.ReadyStart == 0 || s.ReadyStart > s.ColdStart {
		t.Errorf("a cold start took %s, one from the checkpoint %s", s.ColdStart, s.ReadyStart)
	}
	if cold := m.events("cold", ""); len(cold) > 0 {
		t.Errorf("started cold: %v", cold)
	}
}

// holds reports whether a text is in a file below a directory. Holes are
// skipped.
func (m *machine) holds(dir, text string) bool {
	m.t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		const seekData, seekHole = 3, 4
		for at := int64(0); ; {
			data, err := f.Seek(at, seekData)
			if err != nil {
				return nil // no more
			}
			hole, err := f.Seek(data, seekHole)
			if err != nil {
				return err
			}
			content, err := io.ReadAll(io.NewSectionReader(f, data, hole-data))
			if err != nil {
				return err
			}
			found = found || bytes.Contains(content, []byte(text))
			at = hole
		}
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return found
}

// TestReadyMismatch changes what a checkpoint stands on: the service starts
// cold, an event says why, and there is a new checkpoint.
func TestReadyMismatch(t *testing.T) {
	m := newMachine(t)
	m.upReady(readyCompose).want("/count", "1")
	dir := filepath.Join(m.state(), "ready", m.project, "web")
	checkpoints := 1
	for _, test := range []struct {
		name   string
		change func() error
		reason string
	}{
		{"code", func() error { return os.WriteFile(filepath.Join(m.dir, "app", "new.py"), nil, 0o644) }, "files were changed in /app"},
		{"meta", func() error { return scribble(filepath.Join(dir, "meta")) }, "corrupt"},
		{"image", func() error { return os.Truncate(filepath.Join(dir, "pages.img"), 1<<20) }, "pages image"},
		{"image's content", func() error { return scribble(filepath.Join(dir, "pages.img")) }, "pages image"},
		{"key", func() error { return os.WriteFile(filepath.Join(m.state(), "key"), bytes.Repeat([]byte{7}, 32), 0o600) }, "key"},
		{"configuration", func() error { m.compose(strings.ReplaceAll(readyCompose, "red", "blue")); return nil }, "configuration"},
	} {
		if err := test.change(); err != nil {
			t.Fatal(err)
		}
		if test.name == "configuration" {
			m.must("up", "-d")
		} else {
			m.must("restart", "web")
		}
		checkpoints++
		m.awaitEvents("cold", test.reason, 1)
		m.awaitEvents("checkpoint", "", checkpoints)
		m.connectWeb().want("/count", "1")
		before := len(m.events("start", "from its ready checkpoint"))
		m.must("restart", "web")
		m.awaitEvents("start", "from its ready checkpoint", before+1)
		m.connectWeb().want("/count", "1")
	}
}

// TestReadyHooks tells a service before its checkpoint, after it, and after
// each restore, before anybody else reaches it.
func TestReadyHooks(t *testing.T) {
	m := newMachine(t)
	compose := readyCompose + "      before_checkpoint: {http: 8000/before}\n      after_restore: {http: 8000/after}\n"
	m.upReady(compose).want("/hooks", "before after")
	for range 2 {
		m.must("restart", "web")
		m.connectWeb().want("/hooks", "before after")
	}
	m.compose(strings.ReplaceAll(compose, "COLOR: red", "FAIL: yes"))
	m.must("up", "-d")
	m.awaitEvents("refuse", "before_checkpoint: request /before: answered by 500", 1)
	m.connectWeb().want("/hooks", "before") // and people are let in
}

// TestReadyRefusal names what can not be checkpointed; the service runs.
func TestReadyRefusal(t *testing.T) {
	m := newMachine(t)
	m.file("app/server.py", readyProgram)
	m.compose(strings.ReplaceAll(readyCompose, "{COLOR: red}", `{EXTRA: "import fcntl; f = open('/tmp/locked', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"}`))
	m.must("up", "-d")
	m.awaitEvents("refuse", "a record lock on /tmp/locked", 1)
	m.connectWeb().want("/count", "1")
	if _, err := os.Stat(filepath.Join(m.state(), "ready", m.project, "web")); err == nil {
		t.Error("there is a checkpoint")
	}
}
