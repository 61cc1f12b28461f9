package e2e

import (
	_ "embed"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

//go:embed testdata/server.py
var server string

// web is a compose file with the test's server.
const web = `
services:
  web:
    x-torpor: {rootfs: /, sleep_after: 1h}
    command: [/usr/bin/python3, /srv/server.py]
    volumes: ["./server.py:/srv/server.py:ro"]
    stop_grace_period: 5s
`

func (m *machine) upWeb() *connection {
	m.t.Helper()
	m.file("server.py", server)
	m.compose(web)
	m.must("up", "-d")
	return m.connect(m.ps()["web"].Address + ":8000")
}

func TestSleepsWithItsConnectionOpen(t *testing.T) {
	m := newMachine(t)
	held := m.upWeb()
	held.want("/count", "1")
	before := m.awaitState("web", "awake")
	if before.MemoryBytes < 10<<20 {
		t.Errorf("memory is %d bytes", before.MemoryBytes)
	}
	for i := range 3 {
		m.must("sleep", "web")
		asleep := m.ps()["web"]
		if asleep.State != "asleep" || asleep.ConnectionsHeld != 1 || asleep.MemoryBytes > 1<<20 || i == 0 && asleep.ReturnedBytes < 10<<20 {
			t.Fatalf("asleep it is %+v", asleep)
		}
		held.want("/count", fmt.Sprint(i+2))
		awake := m.awaitState("web", "awake") // the answer may come before the keeper has noted it
		if awake.State != "awake" || awake.LastWake == 0 || awake.Cycles != i+1 {
			t.Fatalf("woken it is %+v", awake)
		}
	}
	m.must("sleep", "web")
	m.connect(m.ps()["web"].Address+":8000").want("/count", "5")
	m.must("sleep", "web")
	m.must("wake", "web")
	if s := m.ps()["web"]; s.State != "awake" {
		t.Errorf("after wake it is %+v", s)
	}
	held.want("/count", "6")
}

func TestFallsAsleepByItself(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(strings.ReplaceAll(web, "sleep_after: 1h", "sleep_after: 500ms"))
	m.must("up", "-d")
	held := m.connect(m.ps()["web"].Address + ":8000")
	for i := range 3 {
		held.want("/count", fmt.Sprint(i+1))
		m.awaitState("web", "asleep")
	}
	events := m.must("events", "--json")
	for _, want := range []string{`"create"`, `"start"`, `"sleep"`, `"wake"`} {
		if !strings.Contains(events, `"type":`+want) {
			t.Errorf("no event %s in\n%s", want, events)
		}
	}
}

// TestDaemonMayGo kills the daemon: services do not notice, sleep and wake
// without it, and the next daemon finds them.
func TestDaemonMayGo(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, asleep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s asleep=%v", signal, asleep), func(t *testing.T) {
				m := newMachine(t)
				held := m.upWeb()
				held.want("/count", "1")
				if asleep {
					m.must("sleep", "web")
				}
				m.stopDaemon(signal)
				if r := m.torpor("ps"); r.code != 4 || !strings.Contains(r.stderr, "torpor serve") {
					t.Errorf("without a daemon: %s", r)
				}
				held.want("/count", "2")
				m.serve()
				s := m.awaitState("web", "awake")
				if s.MainPID == 0 || s.Restarts != 0 {
					t.Errorf("found again it is %+v", s)
				}
				held.want("/count", "3")
				m.must("sleep", "web")
				m.stopDaemon(signal)
				m.serve()
				m.awaitState("web", "asleep")
				held.want("/count", "4")
			})
		}
	}
}

// TestKeeperMayGo kills the keeper: the daemon starts another one, which takes
// over what is awake and what sleeps.
func TestKeeperMayGo(t *testing.T) {
	m := newMachine(t)
	held := m.upWeb()
	held.want("/count", "1")
	kill := func() {
		t.Helper()
		old := m.processes("keeper")
		if len(old) != 1 {
			t.Fatalf("keepers are %v", old)
		}
		if err := syscall.Kill(old[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		m.eventually("another keeper", func() error {
			if now := m.processes("keeper"); len(now) != 1 || now[0] == old[0] {
				return fmt.Errorf("keepers are %v", now)
			}
			return nil
		})
	}
	kill()
	m.eventually("sleep", func() error {
		if r := m.torpor("sleep", "web"); r.code != 0 {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	kill()
	held.want("/count", "2")
	m.awaitState("web", "awake")
	kill()
	held.want("/count", "3")
	if _, err := os.Stat(m.state()); err != nil {
		t.Error(err)
	}
}
