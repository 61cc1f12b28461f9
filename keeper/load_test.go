package keeper

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"torpor/checkpoint"
	"torpor/host"
	"torpor/internal/initproc"
	"torpor/internal/kerneltest"
)

// loadCycles sleeps and wakes happen while clients never stop asking.
const (
	loadCycles  = 60
	loadClients = 4
	// Between requests: a service that never rests is not put to sleep.
	thinkTime = 20 * time.Millisecond
)

// exchange sends the n-th request of a client and checks its answer.
type exchange func(client, n int, conn net.Conn, reader *bufio.Reader) error

// TestUnderLoad puts services to sleep again and again while keep-alive
// clients ask without a pause: every request is answered, no connection is
// reset, and nothing grows.
func TestUnderLoad(t *testing.T) { eachProgram(t, underLoad) }

// eachProgram runs a test with real programs: they wait for their connections by
// threads, by epoll and by several processes.
func eachProgram(t *testing.T, test func(t *testing.T, args []string, ask exchange)) {
	for _, p := range []struct {
		name    string
		program string
		args    func(t *testing.T) []string
		ask     exchange
	}{
		{"python", "/usr/bin/python3", func(*testing.T) []string { return []string{"-c", quietPythonServer, "20"} }, askHTTP},
		{"node", "node", func(*testing.T) []string { return []string{"-e", nodeServer} }, askHTTP},
		{"redis", "redis-server", func(*testing.T) []string {
			return []string{"--port", "8000", "--save", "", "--protected-mode", "no"}
		}, askRedis},
		{"nginx", "nginx", func(t *testing.T) []string { return []string{"-c", nginxConfig(t)} }, askHTTP},
		{"go", "", func(t *testing.T) []string { return nil }, askHTTP},
	} {
		t.Run(p.name, func(t *testing.T) {
			args := p.args(t)
			if p.name == "go" {
				args = []string{buildGoServer(t)}
			} else {
				kerneltest.Require(t, kerneltest.Program(p.program))
				args = append([]string{p.program}, args...)
			}
			test(t, args, p.ask)
		})
	}
}

func underLoad(t *testing.T, args []string, ask exchange) {
	state := t.TempDir()
	p := initproc.ForTest(t, args...)
	k := startKeeper(t, Config{Socket: filepath.Join(t.TempDir(), "keeper.sock"), StateDir: state})
	go func() {
		for range k.events { // nobody waits for them here
		}
	}()
	target := testTarget(p, state)
	target.SleepAfter, target.Verify = 0, false
	if err := os.MkdirAll(filepath.Dir(target.LogPath), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := k.Adopt(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	load := startLoad(t, p, ask)
	early, refused := int64(0), 0
	for cycle := range loadCycles {
		for {
			_, err := k.Sleep(t.Context(), target.ID)
			if err == nil {
				break
			}
			if !errors.Is(err, host.ErrRefused) { // it was at work all the time
				t.Fatalf("cycle %d: %v", cycle, err)
			}
			if refused++; refused > loadCycles {
				t.Fatalf("cycle %d: refused again and again: %v", cycle, err)
			}
		}
		if err := load.waitForMore(t); err != nil {
			t.Fatal(err)
		}
		if cycle == loadCycles/4 {
			early = diskBytes(t, target.CheckpointDir)
		}
	}
	load.finish(t)
	if now := diskBytes(t, target.CheckpointDir); now > early*3/2+4<<20 {
		t.Errorf("pages image grew from %d to %d bytes", early, now)
	}
	if _, err := k.Wake(t.Context(), target.ID, "end of test"); err != nil {
		t.Error(err)
	}
	checkHolder(t, p.PID)
	t.Logf("%d requests answered over %d sleeps, %d refused because it was at work", load.answered.Load(), loadCycles, refused)
}

// checkHolder checks that nothing is parked, and that no stub is left.
func checkHolder(t *testing.T, init int) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", init))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 6 {
		t.Errorf("init has %d descriptors, want its own 6", len(entries))
	}
	pids, err := checkpoint.ContainerTree(init)()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.TrimSpace(string(b)) == checkpoint.StubName {
			t.Errorf("stub %d is left", pid)
		}
	}
}

// diskBytes is what the pages image takes on disk.
func diskBytes(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(checkpoint.ImagePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// load is a number of clients that ask without a pause.
type load struct {
	clients  sync.WaitGroup
	stop     atomic.Bool
	answered atomic.Int64
	failed   chan error
}

func startLoad(t *testing.T, p *initproc.Process, ask exchange) *load {
	l := &load{failed: make(chan error, loadClients)}
	t.Cleanup(func() { l.stop.Store(true); l.clients.Wait() })
	for client := range loadClients {
		conn, err := p.Dial(8000)
		if err != nil {
			t.Fatal(err)
		}
		l.clients.Go(func() {
			defer conn.Close()
			reader := bufio.NewReader(conn)
			for n := 1; !l.stop.Load(); n++ {
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				if err := ask(client, n, conn, reader); err != nil {
					l.failed <- fmt.Errorf("client %d, request %d: %w", client, n, err)
					return
				}
				l.answered.Add(1)
				time.Sleep(rand.N(2 * thinkTime))
			}
		})
	}
	return l
}

// waitForMore waits until every client could have been answered again.
func (l *load) waitForMore(t *testing.T) error {
	t.Helper()
	for want := l.answered.Load() + 2*loadClients; l.answered.Load() < want; {
		select {
		case err := <-l.failed:
			return err
		case <-time.After(200 * time.Microsecond):
		}
	}
	return nil
}

func (l *load) finish(t *testing.T) {
	t.Helper()
	l.stop.Store(true)
	l.clients.Wait()
	select {
	case err := <-l.failed:
		t.Fatal(err)
	default:
	}
}

func askHTTP(_, _ int, conn net.Conn, reader *bufio.Reader) error {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || string(body) != "awake\n" || response.Close {
		return fmt.Errorf("got %s, %q", response.Status, body)
	}
	return nil
}

// askRedis counts: a state that went back would show.
func askRedis(client, n int, conn net.Conn, reader *bufio.Reader) error {
	if _, err := fmt.Fprintf(conn, "INCR counter%d\r\n", client); err != nil {
		return err
	}
	line, err := reader.ReadString('\n')
	if err == nil && line != fmt.Sprintf(":%d\r\n", n) {
		err = fmt.Errorf("got %q, want %d", line, n)
	}
	return err
}

const quietPythonServer = `
import http.server, sys
heap = [bytes([i & 255]) * 65536 for i in range(int(sys.argv[1]) * 16)]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        if any(chunk[-1] != i & 255 for i, chunk in enumerate(heap)):
            raise SystemError("the heap has changed")
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"awake\n")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
`

const nodeServer = `
const heap = Array.from({length: 100000}, (_, i) => ({i}));
require("http").createServer((request, response) => {
  const i = Math.floor(Math.random() * heap.length);
  response.writeHead(heap[i].i === i ? 200 : 500, {"Content-Length": 6});
  response.end("awake\n");
}).listen(8000, "0.0.0.0");
`

func nginxConfig(t *testing.T) string {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "nginx.conf")
	config := fmt.Sprintf(`user www-data; worker_processes 2; pid %[1]s/pid; daemon off; error_log stderr;
events { worker_connections 64; }
http { access_log off; keepalive_requests 100000000;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server { listen 8000; location / { default_type text/plain; return 200 "awake\n"; } } }
`, dir)
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func buildGoServer(t *testing.T) string {
	dir := t.TempDir()
	source := `package main

import (
	"io"
	"net/http"
	"runtime/debug"
)

var heap [][]byte

func main() {
	for i := range 200 {
		heap = append(heap, make([]byte, 100000+i))
	}
	http.ListenAndServe(":8000", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		heap[len(heap)/2] = make([]byte, 150000)
		for _, b := range heap[len(heap)/2] {
			if b != 0 {
				http.Error(w, "new memory is not zero", 500)
				return
			}
		}
		if len(heap)%2 == 0 {
			debug.FreeOSMemory()
		}
		io.WriteString(w, "awake\n")
	}))
}
`
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644),
		os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module server\n\ngo 1.24\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", "server", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build server: %v\n%s", err, out)
	}
	return filepath.Join(dir, "server")
}

// TestManyCycles wakes a service with 200 MB three hundred times.
func TestManyCycles(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("/usr/bin/python3"))
	state := t.TempDir()
	p := initproc.ForTest(t, "/usr/bin/python3", "-c", quietPythonServer, "200")
	k := startKeeper(t, Config{Socket: filepath.Join(t.TempDir(), "keeper.sock"), StateDir: state})
	go func() {
		for range k.events {
		}
	}()
	target := testTarget(p, state)
	target.SleepAfter, target.Verify = 0, false
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
	reader := bufio.NewReader(conn)
	early := int64(0)
	for cycle := range 300 {
		if _, err := k.Sleep(t.Context(), target.ID); err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if err := askHTTP(0, cycle, conn, reader); err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
		if cycle == 20 {
			early = diskBytes(t, target.CheckpointDir)
		}
	}
	if now := diskBytes(t, target.CheckpointDir); now > early*11/10+4<<20 {
		t.Errorf("pages image grew from %d to %d bytes", early, now)
	}
	checkHolder(t, p.PID)
}
