package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestUpKeepsWhatIsUnchanged(t *testing.T) {
	m := newMachine(t)
	m.upWeb().want("/env", "")
	first := m.ps()["web"]
	m.must("up", "-d")
	if again := m.ps()["web"]; again.MainPID != first.MainPID {
		t.Errorf("unchanged, but process %d became %d", first.MainPID, again.MainPID)
	}
	m.compose(web + "    environment: {COLOR: red}\n")
	m.must("up", "-d")
	changed := m.ps()["web"]
	if changed.MainPID == first.MainPID {
		t.Errorf("changed, but still process %d", first.MainPID)
	}
	m.connect(changed.Address+":8000").want("/env", "red")
	m.must("up", "-d", "--force-recreate")
	if again := m.ps()["web"]; again.MainPID == changed.MainPID {
		t.Errorf("force-recreate left process %d", again.MainPID)
	}
	m.must("up", "-d")
	m.must("sleep", "web")
	m.must("up", "-d")
	if s := m.ps()["web"]; s.State != "asleep" {
		t.Errorf("up of an unchanged, sleeping service made it %s", s.State)
	}
}

func TestOrphansAreRemovedWhenAsked(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(web + strings.ReplaceAll(strings.TrimPrefix(web, "\nservices:\n"), "  web:", "  old:"))
	m.must("up", "-d")
	m.compose(web)
	if r := m.torpor("up", "-d"); r.code != 0 || !strings.Contains(r.stderr, "old") {
		t.Errorf("orphan is not mentioned: %s", r)
	}
	if _, ok := m.ps()["old"]; !ok {
		t.Error("orphan removed without being asked")
	}
	m.must("up", "-d", "--remove-orphans")
	if _, ok := m.ps()["old"]; ok {
		t.Error("orphan is still there")
	}
}

// TestStopsCleanly stops a service that is awake and one that sleeps: both are
// told by their stop signal and end by themselves.
func TestStopsCleanly(t *testing.T) {
	for _, asleep := range []bool{false, true} {
		t.Run(fmt.Sprintf("asleep=%v", asleep), func(t *testing.T) {
			m := newMachine(t)
			m.file("server.py", server)
			if err := os.Mkdir(filepath.Join(m.dir, "out"), 0o777); err != nil {
				t.Fatal(err)
			}
			m.compose(strings.ReplaceAll(web, `:ro"]`, `:ro", "./out:/out"]`) + "    environment: {MARK: /out/mark}\n")
			m.must("up", "-d")
			m.connect(m.ps()["web"].Address+":8000").want("/count", "1")
			if asleep {
				m.must("sleep", "web")
			}
			m.must("stop", "web")
			if s := m.ps()["web"]; s.State != "exited" || s.ExitCode != 0 {
				t.Errorf("stopped it is %+v", s)
			}
			b, err := os.ReadFile(filepath.Join(m.dir, "out/mark"))
			if err != nil || string(b) != "clean end after 1\n" {
				t.Errorf("mark is %q, %v", b, err)
			}
			m.must("start", "web")
			m.connect(m.ps()["web"].Address+":8000").want("/count", "1")
			m.must("restart", "web")
			m.connect(m.ps()["web"].Address+":8000").want("/count", "1")
		})
	}
}

func TestKillsAfterGrace(t *testing.T) {
	m := newMachine(t)
	m.compose(`
services:
  deaf:
    x-torpor: {rootfs: /}
    command: [/usr/bin/python3, -c, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1e6)"]
    stop_grace_period: 300ms
`)
	m.must("up", "-d")
	m.eventually("deaf runs", func() error {
		if out := m.must("logs", "deaf"); !strings.Contains(out, "deaf") {
			return fmt.Errorf("logs are %q", out)
		}
		return nil
	})
	m.must("stop", "deaf")
	if s := m.ps()["deaf"]; s.State != "exited" || s.ExitCode != 137 {
		t.Errorf("killed it is %+v", s)
	}
}

func TestRestartPolicy(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(web + "    restart: on-failure\n    environment: {EXIT: '3'}\n" +
		"  once:\n    x-torpor: {rootfs: /}\n    command: [/bin/sh, -c, 'exit 4']\n" +
		"  limited:\n    x-torpor: {rootfs: /}\n    command: [/bin/false]\n    restart: on-failure:2\n")
	m.must("up", "-d")
	address := m.ps()["web"].Address + ":8000"
	c := m.connect(address)
	started := c.get("/started")
	_, _ = c.try("/exit")
	m.eventually("web is started again", func() error {
		answer, err := m.connect(address).try("/started")
		if err == nil && answer == started {
			err = fmt.Errorf("still the first one")
		}
		return err
	})
	if s := m.ps()["web"]; s.Restarts != 1 {
		t.Errorf("after one restart it is %+v", s)
	}
	if s := m.awaitState("once", "exited"); s.ExitCode != 4 || s.Restarts != 0 {
		t.Errorf("without a policy it is %+v", s)
	}
	m.eventually("limited gives up", func() error {
		if s := m.ps()["limited"]; s.State != "exited" || s.ExitCode != 1 || s.Restarts != 2 {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
}

// TestExitWhileDaemonIsAway ends the application while no daemon runs: the
// next one knows the exit code and obeys the restart policy.
func TestExitWhileDaemonIsAway(t *testing.T) {
	for _, restart := range []string{"no", "always"} {
		t.Run(restart, func(t *testing.T) {
			m := newMachine(t)
			m.file("server.py", server)
			m.compose(web + fmt.Sprintf("    restart: %q\n", restart))
			m.must("up", "-d")
			address := m.ps()["web"].Address + ":8000"
			c := m.connect(address)
			started := c.get("/started")
			m.stopDaemon(syscall.SIGKILL)
			_, _ = c.try("/exit")
			m.serve()
			if restart == "no" {
				if s := m.awaitState("web", "exited"); s.ExitCode != 7 {
					t.Errorf("found ended it is %+v", s)
				}
				return
			}
			if again := m.connect(address).get("/started"); again == started {
				t.Error("still the first one")
			}
			m.awaitState("web", "awake")
		})
	}
}

func TestDependsOn(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(web + `    depends_on:
      setup: {condition: service_completed_successfully}
      db: {condition: service_healthy}
  setup:
    x-torpor: {rootfs: /}
    command: [/bin/sh, -c, 'sleep 0.3; date +%s%N > /out/setup']
    volumes: ["out:/out"]
  db:
    x-torpor: {rootfs: /}
    command: [/bin/sh, -c, 'sleep 0.5; date +%s%N > /out/db; touch /tmp/healthy; exec sleep 1000']
    volumes: ["out:/out"]
    healthcheck: {test: [CMD, test, -e, /tmp/healthy], interval: 50ms, start_interval: 50ms, retries: 100}
volumes: {out: }
`)
	m.must("up", "-d")
	web := m.connect(m.ps()["web"].Address + ":8000").get("/started")
	for _, name := range []string{"setup", "db"} {
		b, err := os.ReadFile(filepath.Join(m.state(), "volumes", m.project+"_out", name))
		if at := strings.TrimSpace(string(b)); err != nil || len(at) != len(web) || at > web {
			t.Errorf("web started at %s, %s was ready at %s, %v", web, name, at, err)
		}
	}
	if s := m.ps()["db"]; s.Health != "healthy" {
		t.Errorf("db is %+v", s)
	}
}

func TestFailedDependency(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(strings.Replace(web, "x-torpor", "depends_on: {setup: {condition: service_completed_successfully}}\n    x-torpor", 1) +
		"  setup:\n    x-torpor: {rootfs: /}\n    command: [/bin/false]\n")
	if r := m.torpor("up", "-d"); r.code != 1 || !strings.Contains(r.stderr, "setup-1 ended with 1") {
		t.Errorf("%s", r)
	}
	if s := m.ps()["web"]; s.State != "created" {
		t.Errorf("web is %+v", s)
	}
}

func TestLogs(t *testing.T) {
	m := newMachine(t)
	c := m.upWeb()
	c.want("/", "ok")
	m.eventually("logs", func() error {
		r := m.torpor("logs", "web")
		out := r.stdout + r.stderr
		for _, want := range []string{"listening", "a warning", "answered /"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in %q", want, out)
			}
		}
		return nil
	})
	if out := m.must("logs", "--tail", "1", "web"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "answered") {
		t.Errorf("tail 1 is %q", out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	follow := m.command(ctx, "logs", "-f", "web")
	var out lockedBuffer
	follow.Stdout, follow.Stderr = &out, &out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	m.must("sleep", "web")
	c.want("/peer", c.conn.LocalAddr().(interface{ String() string }).String()[:strings.LastIndex(c.conn.LocalAddr().String(), ":")])
	m.eventually("followed line", func() error {
		if !strings.Contains(out.String(), "answered /peer") {
			return fmt.Errorf("got %q", out.String())
		}
		return nil
	})
	cancel()
	_ = follow.Wait()
}

func TestExec(t *testing.T) {
	m := newMachine(t)
	m.upWeb().want("/count", "1")
	m.must("sleep", "web")
	if out := m.must("exec", "web", "/bin/sh", "-c", "echo out; hostname; echo $COLOR"); out != "out\nweb\n\n" {
		t.Errorf("exec printed %q", out)
	}
	if s := m.ps()["web"]; s.State != "awake" {
		t.Errorf("after exec it is %+v", s)
	}
	if r := m.torpor("exec", "web", "/bin/sh", "-c", "echo bad >&2; exit 9"); r.code != 9 || r.stderr != "bad\n" {
		t.Errorf("%s", r)
	}
	if r := m.torpor("exec", "web", "/does/not/exist"); r.code != 127 {
		t.Errorf("%s", r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := m.command(ctx, "exec", "-T", "web", "cat")
	cmd.Stdin = strings.NewReader("through\n")
	if out, err := cmd.Output(); err != nil || string(out) != "through\n" {
		t.Errorf("exec cat gave %q, %v", out, err)
	}
}

func TestPorts(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(web + "    ports: ['127.0.0.1:18080:8000', '18081:8000', '8000']\n")
	m.must("up", "-d")
	s := m.ps()["web"]
	if len(s.Ports) != 3 {
		t.Fatalf("ports are %q", s.Ports)
	}
	m.connect("127.0.0.1:18080").want("/", "ok")
	held := m.connect("127.0.0.1:18081")
	held.want("/", "ok")
	m.must("sleep", "web")
	held.want("/", "ok")
	m.must("sleep", "web")
	gateway := netip.MustParseAddr(s.Address)
	for range 2 { // not .1 by chance
		gateway = gateway.Prev()
	}
	m.connect("127.0.0.1:18080").want("/", "ok")
}

func TestSecretsStayOffDisk(t *testing.T) {
	m := newMachine(t)
	t.Setenv("E2E_TOKEN", "tok-4711-secret")
	m.compose(`
services:
  web:
    x-torpor: {rootfs: /}
    command: [/bin/sh, -c, 'cat /run/secrets/token; stat -c "%a %U" /run/secrets/token; exec sleep 1000']
    secrets: [token]
secrets:
  token: {environment: E2E_TOKEN}
`)
	m.must("up", "-d")
	m.eventually("secret is readable", func() error {
		if out := m.must("logs", "web"); !strings.Contains(out, "tok-4711-secret") {
			return fmt.Errorf("logs are %q", out)
		}
		return nil
	})
	err := filepath.WalkDir(filepath.Join(m.state(), "services"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(path, "/rootfs/") || strings.HasPrefix(d.Name(), "log") {
			return nil
		}
		b, _ := os.ReadFile(path)
		if bytes.Contains(b, []byte("tok-4711-secret")) {
			t.Errorf("the secret is in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.stopDaemon(syscall.SIGKILL)
	m.serve()
	m.must("restart", "web")
	m.eventually("secret is readable again", func() error {
		if out := m.must("logs", "web"); strings.Count(out, "tok-4711-secret") != 2 {
			return fmt.Errorf("logs are %q", out)
		}
		return nil
	})
}

func TestVolumesStayUntilAsked(t *testing.T) {
	m := newMachine(t)
	m.compose(`
services:
  job:
    x-torpor: {rootfs: /}
    command: [/bin/sh, -c, 'echo run >> /data/runs']
    volumes: ["data:/data"]
volumes: {data: }
`)
	for range 2 {
		m.must("up", "-d")
		m.awaitState("job", "exited")
		m.must("down")
	}
	path := filepath.Join(m.state(), "volumes", m.project+"_data", "runs")
	if b, err := os.ReadFile(path); err != nil || string(b) != "run\nrun\n" {
		t.Errorf("volume holds %q, %v", b, err)
	}
	m.must("up", "-d")
	m.must("down", "-v")
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("volume is still there: %v", err)
	}
}

// TestAttachedUp is up without -d: it shows the logs and stops the services at
// an interrupt.
func TestAttachedUp(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(web)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	up := m.command(ctx, "up")
	var out lockedBuffer
	up.Stdout, up.Stderr = &out, &out
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	m.eventually("logs are shown", func() error {
		if !strings.Contains(out.String(), "listening") {
			return fmt.Errorf("got %q", out.String())
		}
		return nil
	})
	if err := up.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := up.Wait(); err != nil {
		t.Errorf("up: %v\n%s", err, out.String())
	}
	if s := m.ps()["web"]; s.State != "exited" || s.ExitCode != 0 {
		t.Errorf("after the interrupt it is %+v", s)
	}
}

// TestKilledAnywhere kills the daemon at many moments of up, stop and down.
// The next one brings every service to an end of its life that makes sense,
// and nothing is left behind.
func TestKilledAnywhere(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(web + "    ports: ['8000']\n    restart: always\n  other:\n    x-torpor: {rootfs: /}\n    command: [/bin/sleep, '1000']\n    volumes: ['data:/data']\nvolumes: {data: }\n")
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
	for i := range 12 {
		after := time.Duration(i*35) * time.Millisecond
		interrupted(after, "up", "-d")
		m.must("up", "-d")
		m.connect(m.ps()["web"].Address+":8000").want("/", "ok")
		if i%2 == 0 {
			interrupted(after, "stop", "-t", "1", "web")
			m.must("start", "web")
			m.connect(m.ps()["web"].Address+":8000").want("/", "ok")
		}
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
