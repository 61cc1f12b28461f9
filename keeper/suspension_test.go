package keeper

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"torpor/host"
	"torpor/internal/initproc"
	"torpor/internal/kerneltest"
	"torpor/internal/netlab"
	"torpor/kernel/netns"
	"torpor/kernel/nfqueue"
)

// suspending is a service whose connections are suspended when it sleeps, and
// its clients.
type suspending struct {
	t      *testing.T
	p      *initproc.Process
	k      *testKeeper
	target Target
	conns  []net.Conn
	reads  []*bufio.Reader
	asked  []int
	ask    exchange
}

func startSuspending(t *testing.T, args []string, ask exchange, clients int) *suspending {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Nft)
	state := t.TempDir()
	s := &suspending{t: t, p: initproc.ForTest(t, args...), ask: ask}
	s.start(Config{Socket: filepath.Join(t.TempDir(), "keeper.sock"), StateDir: state})
	s.target = testTarget(s.p, state)
	s.target.SleepAfter, s.target.Connections = 300*time.Millisecond, host.ConnectionsSuspend
	if err := os.MkdirAll(filepath.Dir(s.target.LogPath), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.k.Adopt(t.Context(), s.target); err != nil {
		t.Fatal(err)
	}
	for range clients {
		conn, err := s.p.Dial(8000)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		s.conns, s.reads, s.asked = append(s.conns, conn), append(s.reads, bufio.NewReader(conn)), append(s.asked, 0)
		s.askOn(len(s.conns) - 1)
	}
	return s
}

func (s *suspending) start(config Config) {
	s.t.Helper()
	s.k = startKeeper(s.t, config)
	events := s.k.events
	go func() {
		for e := range events {
			if e.Type == host.EventError {
				s.t.Errorf("event: %s", e.Reason)
			}
		}
	}()
}

func (s *suspending) askOn(i int) {
	s.t.Helper()
	s.asked[i]++
	s.conns[i].SetDeadline(time.Now().Add(20 * time.Second))
	if err := s.ask(i, s.asked[i], s.conns[i], s.reads[i]); err != nil {
		s.t.Fatalf("client %d, request %d: %v", i, s.asked[i], err)
	}
}

// askAll asks on all connections at the same time.
func (s *suspending) askAll() {
	s.t.Helper()
	var asking sync.WaitGroup
	for _, i := range rand.Perm(len(s.conns)) {
		s.asked[i]++
		s.conns[i].SetDeadline(time.Now().Add(20 * time.Second))
		asking.Go(func() {
			if err := s.ask(i, s.asked[i], s.conns[i], s.reads[i]); err != nil {
				s.t.Errorf("client %d, request %d: %v", i, s.asked[i], err)
			}
		})
	}
	asking.Wait()
}

// awaitSuspended waits until the service sleeps without a socket of a
// connection.
func (s *suspending) awaitSuspended() {
	s.t.Helper()
	s.await("suspended connections", func(st Status) bool { return st.State == host.Asleep && st.ConnectionsSuspended == len(s.conns) })
	if n := s.established(); n != 0 {
		s.t.Errorf("the kernel has %d connections of the service", n)
	}
}

// established counts the kernel's sockets of connections with the service.
func (s *suspending) established() int {
	s.t.Helper()
	n := 0
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", s.p.PID, name))
		if err != nil {
			s.t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line)
			if len(fields) > 3 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", 8000)) && fields[3] == "01" {
				n++
			}
		}
	}
	return n
}

// checkPeers checks that no client had to send anything twice.
func (s *suspending) checkPeers() {
	s.t.Helper()
	for i, conn := range s.conns {
		info, err := netlab.Info(conn.(*net.TCPConn))
		if err != nil || info.Total_retrans > 0 {
			s.t.Errorf("client %d had to send something again: %+v, %v", i, info, err)
		}
	}
}

// TestSuspends puts real programs to sleep without sockets, and wakes them by any
// one connection.
func TestSuspends(t *testing.T) {
	eachProgram(t, func(t *testing.T, args []string, ask exchange) {
		s := startSuspending(t, args, ask, 8)
		for range 5 {
			s.awaitSuspended()
			s.askAll() // at once: whoever is first wakes it
		}
		s.checkPeers()
	})
}

// TestSuspendsOverKeepers goes on with suspended connections in another keeper.
// What a client sends while there is none is repeated, and arrives.
func TestSuspendsOverKeepers(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("/usr/bin/python3"))
	s := startSuspending(t, []string{"/usr/bin/python3", "-c", quietPythonServer, "20"}, askHTTP, 5)
	for range 3 {
		s.awaitSuspended()
		s.k.stop()
		config := s.k.config
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			s.askOn(0)
		}()
		time.Sleep(300 * time.Millisecond)
		s.start(config)
		<-answered
		for i := range s.conns {
			s.askOn(i)
		}
	}
}

// TestSuspendsMany has more connections than are passed in one message, and is
// woken by each kind of event.
func TestSuspendsMany(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("node"))
	s := startSuspending(t, []string{"node", "-e", nodeServer}, askHTTP, 600)
	s.awaitSuspended()
	for _, i := range rand.Perm(len(s.conns)) {
		s.askOn(i)
	}
	s.checkPeers()
	s.awaitSuspended()
	second, err := s.p.Dial(8000) // a new connection
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := askHTTP(0, 1, second, bufio.NewReader(second)); err != nil {
		t.Error(err)
	}
	second.Close()
	s.awaitSuspended()
	s.conns[0].Close() // an end
	s.conns, s.reads, s.asked = s.conns[1:], s.reads[1:], s.asked[1:]
	s.awaitSuspended()
	reset := s.conns[0].(*net.TCPConn)
	reset.SetLinger(0)
	reset.Close()
	s.conns, s.reads, s.asked = s.conns[1:], s.reads[1:], s.asked[1:]
	s.awaitSuspended()
	for i := range s.conns {
		s.askOn(i)
	}
}

// TestParkedWithoutFilter leaves connections parked, and says why, while somebody
// else has the filter's queue; then it suspends them.
func TestParkedWithoutFilter(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("/usr/bin/python3"))
	s := startSuspending(t, []string{"/usr/bin/python3", "-c", quietPythonServer, "20"}, askHTTP, 3)
	s.awaitSuspended()
	s.askOn(0) // it is awake, and its filter going
	var queue *nfqueue.Queue
	for deadline := time.Now().Add(10 * time.Second); queue == nil; time.Sleep(time.Millisecond) {
		err := netns.Do(fmt.Sprintf("/proc/%d/ns/net", s.p.PID), func() (err error) {
			queue, err = nfqueue.Open(nfqueue.Config{Number: filterQueue, CopyBytes: 64, MaxPackets: 16, BufferBytes: 1 << 16})
			return err
		})
		if err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for range 3 {
		st := s.await("parked connections", func(st Status) bool { return st.State == host.Asleep && st.ConnectionsParkedWhy != "" })
		if st.ConnectionsSuspended != 0 || st.ConnectionsHeld != 3 || !strings.Contains(st.ConnectionsParkedWhy, "queue 65520: is taken") {
			t.Errorf("parked it is %+v", st)
		}
		for i := range s.conns {
			s.askOn(i)
		}
	}
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
	s.askOn(1)
	s.awaitSuspended()
	for i := range s.conns {
		s.askOn(i)
	}
	s.checkPeers()
}

// await waits for a status.
func (s *suspending) await(what string, is func(Status) bool) Status {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all, err := s.k.Status(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if is(all[0]) {
			return all[0]
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no %s: %+v", what, all)
		}
	}
}

// TestDataBeforeSuspension has data arrive at a sleeping service in the moment in
// which its connections are to be suspended: it wakes.
func TestDataBeforeSuspension(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("/usr/bin/python3"))
	s := startSuspending(t, []string{"/usr/bin/python3", "-c", quietPythonServer, "20"}, askHTTP, 3)
	svc := s.k.server.find(s.target.ID)
	for i := range s.conns {
		s.askOn(i)
		if err := svc.do(t.Context(), func() { svc.suspendAt = time.Now().Add(time.Hour) }); err != nil { // not by itself
			t.Fatal(err)
		}
		s.await("parked connections", func(st Status) bool { return st.State == host.Asleep && st.ConnectionsHeld == len(s.conns) })
		answered := make(chan error, 1)
		err := svc.do(t.Context(), func() {
			s.conns[i].SetDeadline(time.Now().Add(10 * time.Second))
			go func() { answered <- s.ask(i, 0, s.conns[i], s.reads[i]) }()
			time.Sleep(20 * time.Millisecond)
			if why, err := svc.suspend(time.Now().Add(time.Hour)); why != "" || err != nil {
				t.Error(why, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	}
	s.checkPeers()
}
