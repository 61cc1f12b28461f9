package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestKeeperKilledAroundSuspending kills the keeper at random moments after the
// service fell asleep: while it suspends connections, while they are suspended,
// and while it makes them again. Every connection goes on.
func TestKeeperKilledAroundSuspending(t *testing.T) {
	m := newMachine(t)
	m.file("server.py", server)
	m.compose(strings.ReplaceAll(web, "sleep_after: 1h", "sleep_after: 1s, connections: suspend"))
	m.must("up", "-d")
	const clients, rounds = 5, 16
	var conns [clients]*connection
	for i := range conns {
		conns[i] = m.connect(m.ps()["web"].Address + ":8000")
		conns[i].get("/count")
	}
	suspended := 0
	for round := range rounds {
		m.awaitState("web", "asleep")
		pause := time.Duration(rand.IntN(400)) * time.Millisecond
		waking := round%2 == 1
		if waking {
			m.eventually("suspended connections", func() error {
				if s := m.ps()["web"]; s.State == "asleep" && s.ConnectionsSuspended != clients {
					return fmt.Errorf("it is %+v", s)
				}
				return nil
			})
			pause = time.Duration(rand.IntN(30)) * time.Millisecond
		}
		if m.ps()["web"].ConnectionsSuspended > 0 {
			suspended++
		}
		var asking sync.WaitGroup
		failures := make(chan error, clients)
		ask := func() {
			for _, c := range conns {
				asking.Go(func() {
					if _, err := c.try("/count"); err != nil {
						failures <- err
					}
				})
			}
		}
		if waking {
			ask()
		}
		time.Sleep(pause)
		for _, pid := range m.processes("keeper") {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		if !waking {
			ask()
		}
		asking.Wait()
		close(failures)
		for err := range failures {
			t.Errorf("round %d, killed %s after it slept or was asked: %v", round, pause, err)
		}
		if t.Failed() {
			t.Fatalf("events:\n%s", m.must("events"))
		}
	}
	if suspended < rounds/2 {
		t.Errorf("in %d of %d rounds connections were suspended", suspended, rounds)
	}
}
