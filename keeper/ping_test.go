package keeper

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"torpor/host"
	"torpor/internal/initproc"
	"torpor/internal/kerneltest"
)

// pingServer answers lines, and sends a line by itself on each connection after
// every argv[1] seconds; 0 does not.
const pingServer = `
import asyncio, sys
period = float(sys.argv[1])
async def ping(writer):
    while True:
        await asyncio.sleep(period)
        writer.write(b"ping\n")
async def serve(reader, writer):
    task = asyncio.create_task(ping(writer)) if period else None
    while line := await reader.readline():
        if line != b"pong\n":
            writer.write(line)
    if task:
        task.cancel()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 8000)
    await server.serve_forever()
asyncio.run(main())
`

// outside is a service whose clients are on another machine: what goes between
// two ends on its own is its own business.
type outside struct {
	*testKeeper
	t       *testing.T
	clients *initproc.Process // holds their machine
	target  Target
}

func startOutside(t *testing.T, change func(*Target), args ...string) *outside {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Program(args[0]))
	state := t.TempDir()
	p := initproc.ForTest(t, args...)
	o := &outside{startKeeper(t, Config{Socket: filepath.Join(t.TempDir(), "keeper.sock"), StateDir: state}), t, initproc.ForTest(t), testTarget(p, state)}
	o.wire(p)
	change(&o.target)
	if err := os.MkdirAll(filepath.Dir(o.target.LogPath), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := o.Adopt(t.Context(), o.target); err != nil {
		t.Fatal(err)
	}
	return o
}

// wire connects the machine of the clients with the program's.
func (o *outside) wire(p *initproc.Process) {
	o.t.Helper()
	err := o.clients.InNetwork(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth0"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsPid(p.PID)}); err != nil {
			return err
		}
		return address("192.0.2.1/24")
	})
	if err == nil {
		err = p.InNetwork(func() error { return address("192.0.2.2/24") })
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

func address(prefix string) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// dial connects, trying until the service listens.
func (o *outside) dial() net.Conn {
	o.t.Helper()
	var conn net.Conn
	err := o.clients.InNetwork(func() (err error) {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if conn, err = dialHere([4]byte{192, 0, 2, 2}, 8000); err == nil {
				return nil
			}
		}
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { conn.Close() })
	return conn
}

// dialHere connects on the calling thread, in its namespace.
func dialHere(to [4]byte, port int) (net.Conn, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: to}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

func (o *outside) status() Status {
	o.t.Helper()
	all, err := o.Status(o.t.Context())
	if err != nil || len(all) != 1 {
		o.t.Fatalf("status is %+v, %v", all, err)
	}
	return all[0]
}

// retarget changes settings of the service.
func (o *outside) retarget(change func(*Target)) {
	o.t.Helper()
	change(&o.target)
	if err := o.Adopt(o.t.Context(), o.target); err != nil {
		o.t.Fatal(err)
	}
}

// readPings sends the time of each ping, and answers it if asked to.
func readPings(conn net.Conn, answer bool) <-chan time.Time {
	pings := make(chan time.Time, 100)
	go func() {
		defer close(pings)
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			if lines.Text() == "ping" {
				pings <- time.Now()
				if answer {
					if _, err := conn.Write([]byte("pong\n")); err != nil {
						return
					}
				}
			}
		}
	}()
	return pings
}

// TestWakesAheadOfPings has a server that pings its clients. Once its pings are
// known it sleeps between them, and they come on time.
func TestWakesAheadOfPings(t *testing.T) {
	const period = 1500 * time.Millisecond
	for _, policy := range []host.ConnectionPolicy{host.ConnectionsPark, host.ConnectionsSuspend} {
		t.Run(string(policy), func(t *testing.T) {
			o := startOutside(t, func(target *Target) {
				// Longer than between pings, so that they are learnt.
				target.SleepAfter, target.Connections = 2200*time.Millisecond, policy
			}, "/usr/bin/python3", "-c", pingServer, fmt.Sprint(period.Seconds()))
			first, second := readPings(o.dial(), true), readPings(o.dial(), false) // at nearly the same times
			o.awaitReason("quiet for 1.5 s between its own pings to 192.0.2.1:")
			for len(first)+len(second) > 0 {
				select {
				case <-first:
				case <-second:
				}
			}
			<-first
			<-second
			last := time.Now()
			o.retarget(func(target *Target) { target.SleepAfter = 400 * time.Millisecond })
			for range 4 {
				o.expect(host.EventSleep)
				if e := o.expect(host.EventWake); !strings.HasPrefix(e.Reason, "its own ping to 192.0.2.1:") || !strings.HasSuffix(e.Reason, " is due") {
					t.Errorf("woken by %q", e.Reason)
				}
				at := <-first
				<-second
				if gap := at.Sub(last); gap < period/2 || gap > period+period/2 {
					t.Errorf("ping after %s, want %s", gap, period)
				}
				last = at
			}
			third, last := readPings(o.dial(), true), time.Now() // its pings are foretold by the others
			for range 2 {
				at := <-third
				if gap := at.Sub(last); gap < period/2 || gap > period+period/2 {
					t.Errorf("ping after %s, want %s", gap, period)
				}
				last = at
			}
			report, err := o.Sockets(t.Context(), o.target.ID, false)
			if err != nil || len(report.Connections) != 3 || len(report.Reasons) == 0 {
				t.Fatalf("sockets are %+v, %v", report, err)
			}
			t.Logf("%+v", report)
			for _, c := range report.Connections { // the service just woke
				if !strings.Contains(c.Why, "its own ping is sent every 1.5 s") {
					t.Errorf("connection is %+v", c)
				}
			}
		})
	}
}

// awaitReason waits until the service is said to be something.
func (o *outside) awaitReason(want string) {
	o.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		report, err := o.Sockets(o.t.Context(), o.target.ID, true)
		if err != nil {
			o.t.Fatal(err)
		}
		if strings.Contains(strings.Join(report.Reasons, "\n"), want) {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("reasons are %q, want %q; status %+v", report.Reasons, want, o.status())
		}
	}
}

// TestSleepsOnWithoutPings wakes nobody ahead of anything.
func TestSleepsOnWithoutPings(t *testing.T) {
	o := startOutside(t, func(target *Target) { target.SleepAfter = 300 * time.Millisecond },
		"/usr/bin/python3", "-c", pingServer, "0")
	conn := o.dial()
	reader := bufio.NewReader(conn)
	for range 5 { // regular requests are the client's
		if _, err := conn.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		if line, err := reader.ReadString('\n'); err != nil || line != "hello\n" {
			t.Fatalf("answer %q, %v", line, err)
		}
		time.Sleep(time.Second)
	}
	before := o.status()
	time.Sleep(2500 * time.Millisecond)
	after := o.status()
	if after.State != host.Asleep || after.Cycles != before.Cycles {
		t.Errorf("status went from %+v to %+v", before, after)
	}
	if strings.Contains(after.LastWakeReason, "ping") {
		t.Errorf("woken by %q", after.LastWakeReason)
	}
	report, err := o.Sockets(t.Context(), o.target.ID, false)
	if err != nil || len(report.Connections) != 1 {
		t.Fatalf("sockets are %+v, %v", report, err)
	}
	if c := report.Connections[0]; c.State != ConnectionParked || c.Idle < 2*time.Second || c.Remote.String() != conn.LocalAddr().String() {
		t.Errorf("connection is %+v", c)
	}
}

// TestManyAreSuspended keeps few connections parked and suspends many, without
// being told.
func TestManyAreSuspended(t *testing.T) {
	o := startOutside(t, func(target *Target) { target.SleepAfter = 300 * time.Millisecond },
		"/usr/bin/python3", "-c", pingServer, "0")
	connect := func(n int) {
		for range n {
			conn := o.dial()
			if _, err := conn.Write([]byte("hello\n")); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "hello\n" {
				t.Fatalf("answer %q, %v", line, err)
			}
		}
	}
	connect(5)
	o.expect(host.EventSleep)
	time.Sleep(500 * time.Millisecond)
	o.checkSockets(5, ConnectionParked, "5 connections held")
	connect(65)
	o.expect(host.EventSuspend)
	o.checkSockets(70, ConnectionSuspended, "70 connections held")
	if st := o.status(); st.ConnectionsSuspended != 70 || st.ConnectionsParkedWhy != "" {
		t.Errorf("status is %+v", st)
	}
	o.stop()
	o.testKeeper = startKeeper(t, o.config)
	o.checkSockets(70, ConnectionSuspended, "70 connections held")
}

func (o *outside) checkSockets(n int, state ConnectionState, why string) {
	o.t.Helper()
	report, err := o.Sockets(o.t.Context(), o.target.ID, false)
	if err != nil || len(report.Connections) != n {
		o.t.Fatalf("sockets are %+v, %v", report, err)
	}
	for _, c := range report.Connections {
		if c.State != state || !strings.HasSuffix(c.Why, why) {
			o.t.Errorf("connection is %+v, want %s: %s", c, state, why)
		}
	}
	if len(report.Reasons) == 0 || !strings.Contains(report.Reasons[0], why) {
		o.t.Errorf("reasons are %q", report.Reasons)
	}
}
