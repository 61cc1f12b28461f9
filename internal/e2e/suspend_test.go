package e2e

import (
	_ "embed"
	"math/rand/v2"
	"strings"
	"testing"
)

//go:embed testdata/lines.py
var linesServer string

// lines is a service whose connections are suspended when it sleeps; PORTS are
// its published ones.
const lines = `
services:
  lines:
    x-torpor: {rootfs: /, sleep_after: 500ms, connections: suspend}
    command: [/usr/bin/python3, /srv/lines.py]
    volumes: ["./lines.py:/srv/lines.py:ro"]
    ports: [PORTS]
    environment: {ENV}
`

// upLines starts the service and returns it.
func (m *machine) upLines(ports, env string) service {
	m.t.Helper()
	m.file("lines.py", linesServer)
	m.compose(strings.NewReplacer("PORTS", ports, "ENV", env).Replace(lines))
	m.must("up", "-d")
	return m.ps()["lines"]
}

// TestSuspendedBehindPublishedPorts wakes a service by connections that are
// translated and forwarded, or come from this host, over and over: nobody sees
// a reset or an end, or sends anything twice.
func TestSuspendedBehindPublishedPorts(t *testing.T) {
	m := newMachine(t)
	port := freePort(t)
	o := m.outside()
	s := m.upLines(port+":8000", "")
	clients := []*lineClient{
		m.lines(s.Address + ":8000"), m.lines("127.0.0.1:" + port), m.lines(addressOf(thisAddress, port)),
		o.dial(addressOf(thisAddress, port)), o.dial(addressOf(secondAddress, port)),
	}
	seen := m.capture(o, s)
	for _, c := range clients {
		c.ask()
	}
	for round := range 4 {
		m.awaitSuspended("lines", len(clients))
		clients[round%len(clients)].ask()
		for _, i := range rand.Perm(len(clients)) {
			clients[i].ask()
		}
	}
	for _, c := range clients {
		c.unrepeated()
	}
	seen.quiet()
	if s := m.ps()["lines"]; s.Cycles < 4 {
		t.Errorf("it is %+v", s)
	}
}
