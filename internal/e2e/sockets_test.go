package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// shownSocket is a line of torpor sockets --json.
type shownSocket struct{ Service, Local, Remote, State, Why string }

func (m *machine) sockets(args ...string) []shownSocket {
	m.t.Helper()
	var all []shownSocket
	if err := json.Unmarshal([]byte(m.must(append([]string{"sockets", "--json"}, args...)...)), &all); err != nil {
		m.t.Fatal(err)
	}
	return all
}

// TestSocketsSayWhy follows a connection from awake to parked to suspended.
func TestSocketsSayWhy(t *testing.T) {
	m := newMachine(t)
	held := m.upWeb()
	held.want("/count", "1")
	address := m.ps()["web"].Address + ":8000"
	if all := m.sockets(); len(all) != 1 || all[0].Local != address || all[0].State != "awake" || all[0].Remote == "" {
		t.Errorf("awake there are %+v", all)
	}
	m.must("sleep", "web")
	if all := m.sockets("web"); len(all) != 1 || all[0].Local != address || all[0].State != "parked" || !strings.HasSuffix(all[0].Why, ", 1 connection held") {
		t.Errorf("asleep there are %+v", all)
	}
	if out := m.must("ps", "-v"); !strings.Contains(out, "\n  park 1 connection: idle for ") {
		t.Errorf("ps -v prints:\n%s", out)
	}
	if out := m.must("sockets"); !strings.HasPrefix(out, "SERVICE") || !strings.Contains(out, "parked") {
		t.Errorf("sockets prints:\n%s", out)
	}
	held.want("/count", "2")
	m.compose(strings.ReplaceAll(web, "sleep_after: 1h", "sleep_after: 300ms, connections: suspend"))
	m.must("up", "-d")
	held = m.connect(m.ps()["web"].Address + ":8000")
	held.want("/count", "1")
	m.eventually("suspended", func() error {
		if all := m.sockets(); len(all) != 1 || all[0].State != "suspended" || all[0].Why != "connections: suspend is set" {
			return fmt.Errorf("there are %+v", all)
		}
		return nil
	})
	if out := m.must("ps", "-v"); !strings.Contains(out, "(suspended)") || !strings.Contains(out, "\n  suspend 1 connection: connections: suspend is set\n") {
		t.Errorf("ps -v prints:\n%s", out)
	}
	held.want("/count", "2")
	if out := m.must("down"); strings.Contains(out, "error") {
		t.Error(out)
	}
	if all := m.sockets(); len(all) != 0 {
		t.Errorf("after down there are %+v", all)
	}
}
