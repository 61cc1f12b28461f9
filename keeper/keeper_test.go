package keeper

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torpor/host"
	"torpor/internal/initproc"
)

// testKeeper is a keeper in this process and a client of it.
type testKeeper struct {
	*Client
	t      *testing.T
	config Config
	server *Server
	stop   func()
	events chan host.Event
}

func startKeeper(t *testing.T, config Config) *testKeeper {
	t.Helper()
	server, err := NewServer(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	k := &testKeeper{t: t, config: config, server: server, events: make(chan host.Event, 100)}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if k.Client, err = Dial(ctx, config.Socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	watched := make(chan error, 1)
	go func() {
		watched <- k.Watch(ctx, func(e host.Event) {
			select {
			case k.events <- e:
			case <-ctx.Done():
			}
		})
	}()
	stopped := false
	k.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-watched
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(k.stop)
	return k
}

// expect waits for an event of a type.
func (k *testKeeper) expect(what host.EventType) host.Event {
	k.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e := <-k.events:
			k.t.Logf("event %s %s %v", e.Type, e.Reason, e.Attrs)
			if e.Type == what {
				return e
			}
		case <-timeout:
			all, err := k.Status(context.Background())
			k.t.Fatalf("no event %s within 10 s; status %+v, %v", what, all, err)
		}
	}
}

func testTarget(p *initproc.Process, state string) Target {
	dir := filepath.Join(state, "services", "test-web-1")
	return Target{ID: "test-web-1", Project: "test", Service: "web", InitPID: p.PID, RunDir: p.RunDir,
		CheckpointDir: filepath.Join(dir, "checkpoint"), LogPath: filepath.Join(dir, "log"), SleepAfter: 500 * time.Millisecond, Verify: true}
}

const pythonServer = `
import http.server, sys
heap = bytearray(b"x" * (20 << 20))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0
    def do_GET(self):
        Handler.count += 1
        body = b"answer %d\n" % Handler.count
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
print("listening", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
`

// keepAlive is one HTTP connection that stays open.
type keepAlive struct {
	t      *testing.T
	conn   interface{ Write([]byte) (int, error) }
	reader *bufio.Reader
}

func (k *keepAlive) get() string {
	k.t.Helper()
	if _, err := k.conn.Write([]byte("GET / HTTP/1.1\r\nHost: test\r\n\r\n")); err != nil {
		k.t.Fatal(err)
	}
	response, err := http.ReadResponse(k.reader, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.TrimSpace(body)
}

// TestSleepsAndWakesAtAPacket is the main job without a container: a service
// falls asleep by itself, its connection stays open, and the next request on
// it is answered.
func TestSleepsAndWakesAtAPacket(t *testing.T) {
	state := t.TempDir()
	p := initproc.ForTest(t, "/usr/bin/python3", "-c", pythonServer)
	k := startKeeper(t, Config{Socket: filepath.Join(t.TempDir(), "keeper.sock"), StateDir: state})
	target := testTarget(p, state)
	if err := os.MkdirAll(filepath.Dir(target.LogPath), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := k.Adopt(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	conn, err := p.Dial(8000)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := &keepAlive{t, conn, bufio.NewReader(conn)}
	requests := 0
	get := func() {
		t.Helper()
		requests++
		if got, want := client.get(), fmt.Sprintf("answer %d", requests); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	get()
	for range 3 {
		k.expect(host.EventSleep)
		get()
		if e := k.expect(host.EventWake); !strings.HasPrefix(e.Reason, "packet on the connection with 127.0.0.1:") {
			t.Errorf("wake reason is %q", e.Reason)
		}
		get()
	}
	k.expect(host.EventSleep)
	t.Run("new connection wakes", func(t *testing.T) {
		second, err := p.Dial(8000)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		requests++
		if got, want := (&keepAlive{t, second, bufio.NewReader(second)}).get(), fmt.Sprintf("answer %d", requests); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		k.expect(host.EventWake)
	})
	k.expect(host.EventSleep)
	t.Run("keeper restarts while asleep", func(t *testing.T) {
		k.stop()
		again := startKeeper(t, k.config)
		get()
		again.expect(host.EventWake)
		all, err := again.Status(t.Context())
		if err != nil || len(all) != 1 || all[0].State != host.Awake {
			t.Errorf("status is %+v, %v", all, err)
		}
		if err := again.Forget(t.Context(), target.ID); err != nil {
			t.Error(err)
		}
	})
}
