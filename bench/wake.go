package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"torpor/host"
	"torpor/internal/initproc"
	"torpor/keeper"
)

// WakeOptions say what is measured.
type WakeOptions struct {
	HeapMB   []int // one case for each size
	Cycles   int
	Program  string   // python interpreter
	Keeper   []string // command that runs a keeper; --state and --run are added
	Dir      string   // for state; on the file system that is to be measured
	CRIU     string   // criu program to compare with; empty for none
	Progress func(string)
}

// WakeResult are the figures of one case.
type WakeResult struct {
	Name         string                   `json:"name"`
	HeapMB       int                      `json:"heap_mb"`
	Running      Summary                  `json:"running"`        // the packet seen by the keeper to all threads running
	FirstByte    Summary                  `json:"first_response"` // request sent to its answer read, on an open connection
	Awake        Summary                  `json:"awake_response"` // the same while awake
	FirstSleep   time.Duration            `json:"first_sleep_ns"`
	Sleep        Summary                  `json:"sleep"`
	WrittenBytes Bytes                    `json:"written_bytes"` // each later sleep, mean
	Phases       map[string]time.Duration `json:"sleep_phases_ns"`
	WakePhases   map[string]time.Duration `json:"wake_phases_ns"`
	CRIU         *CRIUResult              `json:"criu,omitempty"`
}

// Bytes is a number of bytes.
type Bytes int64

// server is the measured program: it answers on keep-alive connections and
// holds a heap.
const server = `
import http.server, sys
heap = [bytes([i & 255]) * 65536 for i in range(int(sys.argv[1]) * 16)]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = b"awake\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Handler).serve_forever()
`

// wakePort is where the program listens in its own network namespace.
const wakePort = 8000

// Wake measures sleeping and waking of a python service for each heap size.
func Wake(ctx context.Context, o WakeOptions) ([]WakeResult, error) {
	var results []WakeResult
	for _, mb := range o.HeapMB {
		o.Progress(fmt.Sprintf("python with %d MB: %d cycles", mb, o.Cycles))
		r, err := wakeCase(ctx, o, mb)
		if err != nil {
			return results, fmt.Errorf("measure python with %d MB: %w", mb, err)
		}
		if o.CRIU != "" {
			o.Progress(fmt.Sprintf("the same with CRIU: %d cycles", o.Cycles))
			r.CRIU = criuCase(ctx, o, mb)
		}
		results = append(results, *r)
	}
	return results, nil
}

// wakeRun is one case in progress.
type wakeRun struct {
	client  *keeper.Client
	id      host.ContainerID
	conn    net.Conn
	reader  *bufio.Reader
	result  WakeResult
	running Sample
	first   Sample
	awake   Sample
	sleeps  Sample
	written int64
}

func wakeCase(ctx context.Context, o WakeOptions, mb int) (result *WakeResult, err error) {
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	process, err := initproc.Start(dir, o.Program, "-c", server, fmt.Sprint(mb), fmt.Sprint(wakePort))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, process.Stop()) }()
	client, stop, err := startKeeper(ctx, o.Keeper, dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	run := &wakeRun{client: client, id: "bench-python-1", result: WakeResult{Name: fmt.Sprintf("python %d MB", mb), HeapMB: mb}}
	target := keeper.Target{ID: run.id, InitPID: process.PID, RunDir: dir,
		CheckpointDir: filepath.Join(dir, "checkpoint"), LogPath: filepath.Join(dir, "log")}
	if err := client.Adopt(ctx, target); err != nil {
		return nil, err
	}
	if run.conn, err = process.Dial(wakePort); err != nil {
		return nil, err
	}
	defer run.conn.Close()
	run.reader = bufio.NewReader(run.conn)
	if err := run.cycles(ctx, o.Cycles); err != nil {
		return nil, err
	}
	return run.finish(o.Cycles), client.Forget(ctx, run.id)
}

// startKeeper runs a keeper of this benchmark's own.
func startKeeper(ctx context.Context, command []string, dir string) (*keeper.Client, func(), error) {
	cmd := exec.Command(command[0], append(command[1:], "--state", dir, "--run", dir)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start keeper: %w", err)
	}
	stop := func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		client, err := keeper.Dial(ctx, filepath.Join(dir, "keeper.sock"))
		if err == nil {
			return client, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return nil, nil, err
		}
	}
}

func (r *wakeRun) cycles(ctx context.Context, cycles int) error {
	for range 20 {
		took, err := r.request()
		if err != nil {
			return err
		}
		r.awake = append(r.awake, took)
	}
	r.result.Phases, r.result.WakePhases = map[string]time.Duration{}, map[string]time.Duration{}
	for i := range cycles + 1 {
		report, err := r.client.Sleep(ctx, r.id)
		if err != nil {
			return err
		}
		took, err := r.request()
		if err != nil {
			return err
		}
		status, err := r.client.Status(ctx)
		if err != nil {
			return err
		}
		if i == 0 { // writes everything, learns nothing about later ones
			r.result.FirstSleep = report.Duration
			continue
		}
		r.first = append(r.first, took)
		r.sleeps = append(r.sleeps, report.Duration)
		r.written += report.WrittenBytes
		r.running = append(r.running, status[0].LastWake)
		for name, d := range report.Phases {
			r.result.Phases[name] += d / time.Duration(cycles)
		}
		for name, d := range status[0].LastWakePhases {
			r.result.WakePhases[name] += d / time.Duration(cycles)
		}
		if _, err := r.request(); err != nil {
			return err
		}
	}
	return nil
}

// request sends one request on the open connection and returns how long its
// answer took.
func (r *wakeRun) request() (time.Duration, error) {
	begun := time.Now()
	if _, err := io.WriteString(r.conn, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(r.reader, nil)
	if err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && string(body) != "awake\n" {
		err = fmt.Errorf("read answer: got %q", body)
	}
	return time.Since(begun), err
}

func (r *wakeRun) finish(cycles int) *WakeResult {
	r.result.Running, r.result.FirstByte, r.result.Awake, r.result.Sleep = r.running.Summary(), r.first.Summary(), r.awake.Summary(), r.sleeps.Summary()
	r.result.WrittenBytes = Bytes(r.written / int64(max(cycles, 1)))
	return &r.result
}
