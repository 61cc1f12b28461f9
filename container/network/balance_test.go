package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"torpor/host"
)

// replicas are containers of one group behind a shared port.
type replicas struct {
	*lab
	names map[string]host.ContainerID // what a server answers -> whose it is
}

// start makes one, with servers that answer their own address, and publishes
// the shared ports.
func (r *replicas) start(id host.ContainerID) {
	r.t.Helper()
	at, path := r.container(id, "many")
	address := at[0].Address
	r.serveName(path, address)
	r.names[address.String()] = id
	r.do(func(h *Host) error {
		_, err := h.Publish(id, "many/web", address, []host.PortSpec{{Protocol: "tcp", Target: 80, Published: 8080}, {Protocol: "udp", Target: 53, Published: 8053}})
		return err
	})
}

// serveName answers connections and datagrams by an address, then echoes.
func (r *replicas) serveName(path string, address netip.Addr) {
	r.t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	r.in(path, func() (err error) {
		if listener, err = net.Listen("tcp4", ":80"); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp4", ":53")
		return err
	})
	var serving sync.WaitGroup
	r.t.Cleanup(func() {
		listener.Close()
		packets.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, address)
			serving.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	serving.Go(func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(packetWriter{packets, from}, address)
		}
	})
}

// share asks n times and counts who answers.
func (r *replicas) share(from, protocol, address string, n int) map[host.ContainerID]int {
	r.t.Helper()
	count := map[host.ContainerID]int{}
	for range n {
		name := r.seen(from, protocol, address)
		id, ok := r.names[name]
		if !ok {
			r.t.Fatalf("%s answered", name)
		}
		count[id]++
	}
	return count
}

// TestBalance spreads connections and datagrams over the containers of a group,
// from another machine, the host and its loopback; one that exists stays where
// it is while others come and go.
func TestBalance(t *testing.T) {
	r := &replicas{lab: newLab(t), names: map[string]host.ContainerID{}}
	r.network(host.NetworkSpec{Name: "many"})
	outside := hostAddr.String() + ":8080"
	r.start("many-web-1")
	if got := r.share(r.remote, "tcp", outside, 4); got["many-web-1"] != 4 {
		t.Errorf("alone it has %v", got)
	}
	conn, err := r.connect(r.remote, "tcp4", outside, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	echo := func() {
		t.Helper()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintln(conn, "still there")
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("open connection: %v", err)
			}
			if line == "still there\n" {
				return
			}
		}
	}
	echo()
	r.start("many-web-2")
	r.start("many-web-3")
	echo()
	_, peer := r.container("many-peer-1", "many")
	for _, from := range []struct{ path, protocol, address string }{
		{r.remote, "tcp", outside}, {r.here, "tcp", outside}, {r.here, "tcp", "127.0.0.1:8080"}, {peer, "tcp", outside},
		{r.remote, "udp", hostAddr.String() + ":8053"}, {r.here, "udp", "127.0.0.1:8053"},
	} {
		got := r.share(from.path, from.protocol, from.address, 30)
		for id := range map[host.ContainerID]bool{"many-web-1": true, "many-web-2": true, "many-web-3": true} {
			if got[id] < 5 || got[id] > 15 {
				t.Errorf("%s %s: of 30 connections %s has %d: %v", from.protocol, from.address, id, got[id], got)
			}
		}
	}
	r.open() // as a daemon that was killed
	r.do(func(h *Host) error { return h.Restore() })
	echo()
	r.do(func(h *Host) error { return errors.Join(h.Disconnect("many-web-2"), h.Disconnect("many-web-3")) })
	echo()
	if got := r.share(r.remote, "tcp", outside, 6); got["many-web-1"] != 6 {
		t.Errorf("alone again it has %v", got)
	}
	if got := r.share(r.remote, "udp", hostAddr.String()+":8053", 6); got["many-web-1"] != 6 {
		t.Errorf("alone again it has %v datagrams", got)
	}
	r.container("many-other-1", "many")
	r.do(func(h *Host) error {
		_, err := h.Publish("many-other-1", "many/other", netip.MustParseAddr("10.88.0.77"), []host.PortSpec{{Protocol: "tcp", Target: 80, Published: 8080}})
		if !errors.Is(err, host.ErrExists) {
			t.Errorf("another service publishes the port: %v", err)
		}
		return nil
	})
	conn.Close()
	if _, err := io.Copy(io.Discard, lines); err == nil { // its server is to see that before the network is gone
		t.Error("the connection is still open")
	}
	r.do(func(h *Host) error { return h.Disconnect("many-web-1") })
	if len(r.host.held) != 0 {
		t.Errorf("ports are held for nobody: %v", r.host.held)
	}
}

// TestSharedChosenPort gives the containers of a group the same chosen port.
func TestSharedChosenPort(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "many"})
	var chosen []uint16
	for _, id := range []host.ContainerID{"many-web-1", "many-web-2"} {
		at, _ := l.container(id, "many")
		l.do(func(h *Host) error {
			ports, err := h.Publish(id, "many/web", at[0].Address, []host.PortSpec{{Protocol: "tcp", Target: 80}})
			if err == nil {
				chosen = append(chosen, ports[0].HostPort)
			}
			return err
		})
	}
	if chosen[0] == 0 || chosen[0] != chosen[1] {
		t.Errorf("chosen ports %v", chosen)
	}
}
