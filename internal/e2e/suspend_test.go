package e2e

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"torpor/kernel/netns"
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
    restart: always
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

// TestThousandSuspended suspends a thousand connections, whose clients probe
// them every second, and wakes the service by a few, then by all.
func TestThousandSuspended(t *testing.T) {
	const count, some = 1000, 50
	m := newMachine(t)
	port := freePort(t)
	o := m.outside()
	s := m.upLines(port+":8000", "")
	m.lines(s.Address + ":8000").conn.Close() // when it listens
	clients := make([]*lineClient, count)
	for i := range clients {
		clients[i] = o.dial(addressOf(thisAddress, port))
		clients[i].ask()
	}
	seen := m.capture(o, s)
	s = m.awaitSuspended("lines", count)
	for _, c := range clients { // from now on
		err := c.conn.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3})
		if err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(6500 * time.Millisecond)
	if now := m.awaitSuspended("lines", count); now.Cycles != s.Cycles || now.LastWake != s.LastWake {
		t.Errorf("probes woke it: %+v", now)
	}
	order := rand.Perm(count)
	for _, i := range order[:some] {
		clients[i].ask()
	}
	woken := m.awaitSuspended("lines", count)
	if woken.Cycles != s.Cycles+1 {
		t.Errorf("after one wake it is %+v", woken)
	}
	for _, i := range order {
		clients[i].ask()
	}
	seen.quiet()
	for _, c := range clients {
		c.unrepeated()
	}
	t.Logf("woken in %s", m.ps()["lines"].LastWake)
}

// someLines starts the service and n clients outside, which have been answered.
func (m *machine) someLines(n int) (service, []*lineClient, *captures) {
	m.t.Helper()
	port := freePort(m.t)
	o := m.outside()
	s := m.upLines(port+":8000", "")
	clients := make([]*lineClient, n)
	for i := range clients {
		clients[i] = o.dial(addressOf(thisAddress, port))
		clients[i].ask()
	}
	return s, clients, m.capture(o, s)
}

// killKeeper kills the keeper. While there is a daemon, it starts another one.
func (m *machine) killKeeper() {
	m.t.Helper()
	pids := m.processes("keeper")
	if len(pids) != 1 {
		m.t.Fatalf("keepers are %v", pids)
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the keeper ends", func() error {
		if slices.Contains(m.processes("keeper"), pids[0]) {
			return fmt.Errorf("keeper %d is there", pids[0])
		}
		return nil
	})
}

// TestSuspendedWithoutAnybody kills the daemon, the keeper, and both: suspended
// connections go on, and what is sent meanwhile is answered afterwards.
func TestSuspendedWithoutAnybody(t *testing.T) {
	m := newMachine(t)
	_, clients, seen := m.someLines(10)
	askAll := func() {
		t.Helper()
		for _, i := range rand.Perm(len(clients)) {
			clients[i].ask()
		}
	}
	m.awaitSuspended("lines", len(clients))
	m.stopDaemon(syscall.SIGKILL)
	askAll()
	m.serve()
	m.awaitSuspended("lines", len(clients))
	m.stopDaemon(syscall.SIGKILL)
	m.serve()
	m.awaitSuspended("lines", len(clients))
	for _, c := range clients {
		c.unrepeated()
	}
	m.killKeeper()
	askAll()
	m.awaitSuspended("lines", len(clients))
	m.killKeeper()
	m.awaitSuspended("lines", len(clients))

	m.stopDaemon(syscall.SIGKILL)
	m.killKeeper()
	answered := make(chan error, 1)
	go func() { answered <- clients[3].try() }()
	select {
	case err := <-answered:
		t.Fatalf("answered by nobody: %v", err)
	case <-time.After(time.Second):
	}
	m.serve()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	askAll()
	seen.quiet()
}

// TestDamagedRecord resets the connection whose record is damaged, says so, and
// keeps the others.
func TestDamagedRecord(t *testing.T) {
	m := newMachine(t)
	_, clients, seen := m.someLines(10)
	m.awaitSuspended("lines", len(clients))
	images, err := filepath.Glob(filepath.Join(m.state(), "services", "*", "checkpoint", "sockets.img"))
	if err != nil || len(images) != 1 {
		t.Fatalf("socket images are %q, %v", images, err)
	}
	m.stopDaemon(syscall.SIGKILL)
	m.killKeeper()
	const hurt = 4
	damageRecord(t, images[0], clients[hurt].conn.LocalAddr().(*net.TCPAddr).Port)
	m.serve()
	m.eventually("an event about the record", func() error {
		if len(m.events("error", "damaged")) == 0 {
			return fmt.Errorf("events are %s", m.must("events", "--json"))
		}
		return nil
	})
	if err := clients[hurt].try(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client of the damaged record: %v", err)
	}
	others := append(slices.Clone(clients[:hurt]), clients[hurt+1:]...)
	for range 2 {
		for _, c := range others {
			c.ask()
		}
		m.awaitSuspended("lines", len(others))
	}
	for _, end := range seen.ends() {
		if at := clients[hurt].conn.LocalAddr().String(); !end.RST || end.From.String() != at && end.To.String() != at {
			t.Errorf("ended: %s", end)
		}
	}
}

// damageRecord changes one bit of the record of a connection, behind its key:
// local and remote port, local and remote address.
func damageRecord(t *testing.T, image string, remotePort int) {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	ports := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, 8000), uint16(remotePort))
	at := bytes.Index(b, ports)
	if at < 0 {
		t.Fatalf("no record of port %d in %d bytes", remotePort, len(b))
	}
	b[at+16] ^= 4
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSuspendedAndCommands wakes by commands, and takes down what is suspended.
func TestSuspendedAndCommands(t *testing.T) {
	m := newMachine(t)
	s, clients, seen := m.someLines(10)
	askAll := func() {
		t.Helper()
		for _, c := range clients {
			c.ask()
		}
	}
	m.awaitSuspended("lines", len(clients))
	m.must("wake", "lines")
	if n := sockets(t, s); n != len(clients) {
		t.Errorf("woken, the kernel has %d connections", n)
	}
	askAll()
	m.awaitSuspended("lines", len(clients))
	if out := m.must("ps"); !strings.Contains(out, "10 connections held (suspended)") {
		t.Errorf("ps says\n%s", out)
	}
	if out := m.must("exec", "lines", "/bin/sh", "-c", "echo hello"); out != "hello\n" {
		t.Errorf("exec printed %q", out)
	}
	askAll()
	m.awaitSuspended("lines", len(clients))
	seen.quiet()
	for _, c := range clients {
		c.unrepeated()
	}

	inside, err := os.Stat(namespace(s))
	if err != nil {
		t.Fatal(err)
	}
	m.must("down")
	m.leftovers()
	for _, c := range clients {
		if err := c.try(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("after down: %v", err)
		}
	}
	for _, pid := range append(m.processes("keeper"), m.processes("serve")...) {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if other, err := os.Stat(fd); err == nil && os.SameFile(inside, other) {
				t.Errorf("process %d keeps the namespace open", pid)
			}
			if to, _ := os.Readlink(fd); strings.Contains(to, "sockets.img") {
				t.Errorf("process %d keeps %s", pid, to)
			}
		}
	}
}

// wakeOften lets a service sleep some times, and wakes it by one client, then
// asks all.
func (m *machine) wakeOften(name string, clients []*lineClient) {
	m.t.Helper()
	for range 3 {
		m.awaitSuspended(name, len(clients))
		for _, i := range rand.Perm(len(clients)) {
			clients[i].ask()
		}
	}
	for _, c := range clients {
		c.unrepeated()
	}
}

// TestSuspendedKinds suspends connections of different listeners, and of clients
// that lack options of TCP.
func TestSuspendedKinds(t *testing.T) {
	for _, tt := range []struct {
		name, env string
		sysctls   []string // that are switched off
	}{
		{"IPv4 mapped", `DUAL: "1"`, nil},
		{"SO_REUSEPORT", `WORKERS: "3"`, nil},
		{"without options", "", []string{"ipv4/tcp_timestamps", "ipv4/tcp_sack", "ipv4/tcp_window_scaling"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			port := freePort(t)
			o := m.outside()
			for _, name := range tt.sysctls {
				o.sysctl(name, "0")
			}
			s := m.upLines(port+":8000", tt.env)
			clients := []*lineClient{m.lines(s.Address + ":8000"), m.lines("127.0.0.1:" + port)}
			for range 8 {
				clients = append(clients, o.dial(addressOf(thisAddress, port)))
			}
			for _, c := range clients {
				c.ask()
			}
			seen := m.capture(o, s)
			m.wakeOften("lines", clients)
			seen.quiet()
		})
	}
}

// TestSuspendedOnTwoAddresses has two services behind one port of two addresses,
// and clients whose connections differ by nothing else.
func TestSuspendedOnTwoAddresses(t *testing.T) {
	m := newMachine(t)
	port := freePort(t)
	o := m.outside()
	one := strings.NewReplacer("PORTS", `"`+thisAddress+":"+port+`:8000"`, "ENV", "").Replace(lines)
	two := strings.NewReplacer("PORTS", `"`+secondAddress+":"+port+`:8000"`, "ENV", "", "  lines:", "  more:").Replace(strings.TrimPrefix(lines, "\nservices:\n"))
	m.file("lines.py", linesServer)
	m.compose(one + two)
	m.must("up", "-d")
	all := m.ps()
	m.lines(addressOf(thisAddress, port)).conn.Close() // when they listen
	m.lines(addressOf(secondAddress, port)).conn.Close()
	var first, second []*lineClient
	for i := range 5 {
		first = append(first, o.dialFrom(40000+i, addressOf(thisAddress, port)))
		second = append(second, o.dialFrom(40000+i, addressOf(secondAddress, port)))
		first[i].ask()
		second[i].ask()
	}
	seen := m.capture(o, all["lines"], all["more"])
	m.wakeOften("lines", first)
	m.awaitSuspended("lines", len(first))
	before := m.awaitSuspended("more", len(second))
	first[2].ask()
	if now := m.ps()["more"]; now.State != "asleep" || now.Cycles != before.Cycles {
		t.Errorf("woken by packets for the other one: %+v", now)
	}
	m.wakeOften("more", second)
	seen.quiet()
}

// TestDatagramsBesideSuspended holds datagrams for a sleeping service whose
// connections are suspended, for a socket that has a peer and one that has not.
func TestDatagramsBesideSuspended(t *testing.T) {
	m := newMachine(t)
	port, second := freePort(t), freePort(t)
	o := m.outside()
	s := m.upLines(fmt.Sprintf(`"%s:8000", "%s:8000/udp", "%s:8001/udp"`, port, port, second), `UDP: "`+otherAddress+`:5005"`)
	var clients []*lineClient
	for i := range 5 {
		clients = append(clients, o.dial(addressOf(thisAddress, port)))
		clients[i].ask()
	}
	any, peer := o.datagrams(0, addressOf(thisAddress, port)), o.datagrams(5005, addressOf(thisAddress, second))
	seen := m.capture(o, s)
	for range 2 {
		for _, d := range []*lineClient{any, peer} {
			m.awaitSuspended("lines", len(clients))
			d.ask()
			m.awaitState("lines", "awake")
			d.ask()
		}
	}
	m.wakeOften("lines", clients)
	seen.quiet()
}

// TestFloodWakesNobody floods a sleeping service with openings of connections
// and with forged segments, of its connections and of others. It sleeps on, falls
// asleep again after a real client has come, and nothing grows.
func TestFloodWakesNobody(t *testing.T) {
	m := newMachine(t)
	s, clients, seen := m.someLines(20)
	before := m.awaitSuspended("lines", len(clients))
	port := clients[0].conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	memory := m.keeperMemory()
	f := startFlood(m.outsidePath(), port, clients)
	time.Sleep(2 * time.Second)
	if now := m.awaitSuspended("lines", len(clients)); now.Cycles != before.Cycles || now.LastWake != before.LastWake {
		t.Errorf("the flood woke it: %+v", now)
	}
	real := dialLines(t, port.String(), func(dial func() error) error { return netns.Do(m.outsidePath(), dial) })
	real.ask()
	clients = append(clients, real)
	if again := m.awaitSuspended("lines", len(clients)); again.Cycles != before.Cycles+1 {
		t.Errorf("the flood woke it: %+v", again)
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	grown := m.keeperMemory() - memory
	t.Logf("%d packets, the keeper has %d KB more", f.sent, grown>>10)
	if grown > 32<<20 {
		t.Errorf("the keeper's memory grew by %d bytes", grown)
	}
	for _, c := range clients {
		c.ask()
	}
	for _, end := range seen.ends() { // but for nobody's connections
		for _, c := range clients {
			if at := c.conn.LocalAddr().String(); end.To.String() == at || end.From.String() == at {
				t.Fatalf("ended: %s", end)
			}
		}
	}
	if n := sockets(t, s); n < len(clients) {
		t.Errorf("%d sockets of %d clients", n, len(clients))
	}
}

// keeperMemory is what the keeper has resident.
func (m *machine) keeperMemory() int64 {
	m.t.Helper()
	pids := m.processes("keeper")
	if len(pids) != 1 {
		m.t.Fatalf("keepers are %v", pids)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		m.t.Fatal(err)
	}
	var kb int64
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	if _, err := fmt.Sscan(after, &kb); err != nil {
		m.t.Fatal(err)
	}
	return kb << 10
}

// TestInitDiesWhileSuspended kills the container of a service whose connections
// are suspended, with and without a keeper that could notice: they are reset,
// and the service's next container is reached.
func TestInitDiesWhileSuspended(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("alone=%v", alone), func(t *testing.T) {
			m := newMachine(t)
			port := freePort(t)
			o := m.outside()
			m.upLines(port+":8000", "")
			clients := []*lineClient{o.dial(addressOf(thisAddress, port)), o.dial(addressOf(thisAddress, port))}
			for _, c := range clients {
				c.ask()
			}
			s := m.awaitSuspended("lines", len(clients))
			if alone {
				m.stopDaemon(syscall.SIGKILL)
				m.killKeeper()
			}
			m.killContainer(s)
			if alone {
				m.serve()
			}
			m.eventually("another container", func() error {
				if now := m.ps()["lines"]; now.State != "awake" || now.MainPID == 0 {
					return fmt.Errorf("it is %+v", now)
				}
				return nil
			})
			fresh := o.dial(addressOf(thisAddress, port))
			fresh.ask()
			for _, c := range clients {
				if err := c.try(); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("connection of the dead container: %v", err)
				}
			}
			m.awaitSuspended("lines", 1)
			fresh.ask()
		})
	}
}

// killContainer kills all processes of a container: its init, and what waits for
// the wake.
func (m *machine) killContainer(s service) {
	m.t.Helper()
	inside, err := os.Stat(namespace(s))
	if err != nil {
		m.t.Fatal(err)
	}
	killed := 0
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		other, err := os.Stat(entry + "/ns/net")
		if err != nil || !os.SameFile(inside, other) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(entry))
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			killed++
		}
	}
	if killed == 0 {
		m.t.Fatalf("%s has no processes", s.ID)
	}
}
