package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// instances are the containers of the service web, by ID.
func (m *machine) instances() map[string]service {
	m.t.Helper()
	byID := map[string]service{}
	for _, s := range m.all() {
		byID[strings.TrimPrefix(s.ID, m.project+"-")] = s
	}
	return byID
}

// ask asks once, on a connection of its own, at a published port.
func (m *machine) ask(port, path string) string {
	m.t.Helper()
	c := m.connect("127.0.0.1:" + port)
	defer c.conn.Close()
	return c.get(path)
}

// names asks often and returns who answered.
func (m *machine) names(port string, n int) []string {
	m.t.Helper()
	seen := map[string]bool{}
	for range n {
		seen[m.ask(port, "/name")] = true
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// TestReplicas runs three instances behind one port: each answers, one that
// sleeps is woken by its turn, one that ends gets nothing until it is back, and
// the number changes without touching the others.
func TestReplicas(t *testing.T) {
	m := newMachine(t)
	port := freePort(t)
	m.file("app/server.py", readyProgram)
	compose := strings.NewReplacer("checkpoint: ready", "checkpoint: never", "restart: always", "restart: always\n    scale: 3\n    ports: [\"PORT:8000\"]").Replace(readyCompose)
	m.compose(strings.ReplaceAll(compose, "PORT", port))
	m.must("up", "-d")
	m.eventually("all answer", func() error {
		if names := m.names(port, 12); !slices.Equal(names, []string{"web", "web-2", "web-3"}) {
			return fmt.Errorf("answers from %v", names)
		}
		return nil
	})
	m.must("sleep", m.project+"-web-2")
	if s := m.instances(); s["web-2"].State != "asleep" || s["web-1"].State != "awake" || s["web-3"].State != "awake" {
		t.Errorf("instances are %+v", s)
	}
	if names := m.names(port, 12); len(names) != 3 {
		t.Errorf("with one asleep answers came from %v", names)
	}
	if s := m.instances()["web-2"]; s.State != "awake" || s.Cycles != 1 {
		t.Errorf("after its turn it is %+v", s)
	}
	before := m.instances()
	m.must("stop", m.project+"-web-3")
	if names := m.names(port, 12); !slices.Equal(names, []string{"web", "web-2"}) {
		t.Errorf("with one stopped answers came from %v", names)
	}
	m.must("up", "-d", "--scale", "web=1")
	if names := m.names(port, 6); !slices.Equal(names, []string{"web"}) {
		t.Errorf("scaled down to one, answers came from %v", names)
	}
	m.must("up", "-d", "--scale", "web=2")
	m.eventually("both answer", func() error {
		if names := m.names(port, 8); len(names) != 2 {
			return fmt.Errorf("answers from %v", names)
		}
		return nil
	})
	if after := m.instances(); len(after) != 2 || after["web-1"].MainPID != before["web-1"].MainPID {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if out := m.must("exec", "--index", "2", "web", "hostname"); out != "web-2\n" {
		t.Errorf("exec in the second instance: %q", out)
	}
}

// TestSpares fills containers that were made ahead.
func TestSpares(t *testing.T) {
	m := newMachine(t)
	port := freePort(t)
	compose := strings.Replace(readyCompose, "restart: always", "restart: always\n    ports: [\""+port+":8000\"]", 1) + "      spares: 2\n"
	started := m.upReady(compose).get("/started")
	spares := func(n int) {
		t.Helper()
		m.eventually(fmt.Sprintf("%d spares", n), func() error {
			runs, err := filepath.Glob(filepath.Join(m.run(), "runtime", m.project+"-web-*"))
			if err == nil && len(runs) != len(m.instances())+n {
				err = fmt.Errorf("containers are %v", runs)
			}
			return err
		})
	}
	spares(2)
	if s := m.instances(); len(s) != 1 {
		t.Errorf("spares are shown: %+v", s)
	}
	if names := m.names(port, 6); !slices.Equal(names, []string{"web"}) {
		t.Errorf("spares are let in: %v", names)
	}
	m.must("clone", "web", "2")
	for id, s := range m.instances() {
		m.connect(s.Address+":8000").want("/started", started)
		if s.State != "awake" {
			t.Errorf("%s is %+v", id, s)
		}
	}
	if names := m.names(port, 9); !slices.Equal(names, []string{"web", "web-2", "web-3"}) {
		t.Errorf("answers came from %v", names)
	}
	for _, e := range m.events("start", "from its ready checkpoint") {
		t.Logf("filled in %s ms", e.Attrs["duration_ms"])
	}
	spares(2)
	m.must("sleep", "web")
	if names := m.names(port, 9); len(names) != 3 {
		t.Errorf("woken, answers came from %v", names)
	}
	m.stopDaemon(syscall.SIGKILL)
	m.serve()
	if names := m.names(port, 9); len(names) != 3 {
		t.Errorf("with another daemon answers came from %v", names)
	}
	m.must("clone", "web", "1")
	spares(2)
}

// TestClone makes instances from a ready checkpoint, each with a name and
// address of its own, behind the same port; they sleep and wake on their own.
func TestClone(t *testing.T) {
	m := newMachine(t)
	port := freePort(t)
	compose := strings.Replace(readyCompose, "restart: always", "restart: always\n    ports: [\""+port+":8000\"]", 1)
	c := m.upReady(compose)
	started := c.get("/started")
	m.must("clone", "web", "4")
	want := []string{"web-1", "web-2", "web-3", "web-4", "web-5"}
	addresses, random := map[string]bool{}, map[string]bool{}
	for id, s := range m.instances() {
		if !slices.Contains(want, id) || s.State != "awake" || s.Address == "" {
			t.Errorf("%s is %+v", id, s)
		}
		addresses[s.Address] = true
		clone := m.connect(s.Address + ":8000")
		clone.want("/started", started)
		for _, number := range strings.Fields(clone.get("/random")) {
			random[number] = true
		}
	}
	machines := map[string]bool{}
	for _, s := range m.instances() {
		machines[m.connect(s.Address+":8000").get("/machine")] = true
	}
	if len(machines) != 5 && !machines[""] {
		t.Errorf("machine ids are %v", machines)
	}
	if len(addresses) != 5 || len(random) != 2*5 {
		t.Errorf("addresses are %v, random numbers %v", addresses, random)
	}
	if shared := m.instances()["web-5"].Shared; len(shared) != 1 || !strings.Contains(shared[0], "hash") {
		t.Errorf("it shares %v", shared)
	}
	if names := m.names(port, 20); !slices.Equal(names, []string{"web", "web-2", "web-3", "web-4", "web-5"}) {
		t.Errorf("answers came from %v", names)
	}
	if n := len(m.events("checkpoint", "")); n != 1 {
		t.Errorf("%d checkpoints were made", n)
	}
	m.must("sleep", "web")
	for id, s := range m.instances() {
		if s.State != "asleep" {
			t.Errorf("%s is %+v", id, s)
		}
	}
	third := m.connect(m.instances()["web-3"].Address + ":8000")
	third.want("/started", started)
	time.Sleep(50 * time.Millisecond)
	for id, s := range m.instances() {
		if (s.State == "awake") != (id == "web-3") {
			t.Errorf("after one was asked %s is %+v", id, s)
		}
	}
	if names := m.names(port, 20); len(names) != 5 {
		t.Errorf("answers came from %v", names)
	}
	m.must("checkpoint", "check", m.project+"/web")
	if out := m.must("checkpoint", "ls", "--json"); !strings.Contains(out, m.project+"-web-5") {
		t.Errorf("checkpoints: %s", out)
	}
	m.must("checkpoint", "rm", m.project+"/web") // what runs from it goes on
	m.must("sleep", "web")
	third.want("/started", started)
	if r := m.torpor("clone", "web", "1"); r.code != 5 || !strings.Contains(r.stderr, "it has no ready checkpoint") {
		t.Errorf("clone without a checkpoint: %s", r)
	}
	m.must("up", "-d")
	if s := m.instances(); len(s) != 1 {
		t.Errorf("up left %+v", s)
	}
}
