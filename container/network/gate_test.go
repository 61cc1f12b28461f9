package network

import (
	"testing"
	"time"

	"torpor/host"
)

// TestGate closes a container's gate: nobody gets in, from outside or from its
// own network, by TCP or UDP; it gets out, and talks to itself; who waited is
// let in when it opens.
func TestGate(t *testing.T) {
	l := newLab(t)
	l.network(host.NetworkSpec{Name: "gated"})
	web, webNS := l.container("gated-web-1", "gated")
	_, peerNS := l.container("gated-peer-1", "gated")
	l.serveTCP(webNS, ":80")
	l.serveUDP(webNS, ":53")
	l.serveTCP(l.remote, ":90")
	l.publish("gated-web-1", web[0].Address, host.PortSpec{Protocol: "tcp", Target: 80, Published: 8080})
	inside, outside := web[0].Address.String(), hostAddr.String()+":8080"
	for range 2 { // again changes nothing
		l.do(func(h *Host) error { return h.CloseGate("gated-web-1") })
	}
	l.unreachable(l.remote, "tcp", outside)
	l.unreachable(peerNS, "tcp", inside+":80")
	l.unreachable(peerNS, "udp", inside+":53")
	l.unreachable(l.here, "tcp", inside+":80")
	l.seen(webNS, "tcp", remoteAddr.String()+":90")
	l.seen(webNS, "tcp", "127.0.0.1:80")
	waited := make(chan error, 1)
	go func() {
		_, err := l.ask(l.remote, "tcp", outside, 10*time.Second)
		waited <- err
	}()
	time.Sleep(50 * time.Millisecond) // its first packet was dropped; if not yet, nothing is lost
	for range 2 {
		l.do(func(h *Host) error { return h.OpenGate("gated-web-1") })
	}
	if err := <-waited; err != nil {
		t.Errorf("who waited at the gate: %v", err)
	}
	l.seen(peerNS, "tcp", inside+":80")
	l.seen(peerNS, "udp", inside+":53")
	l.do(func(h *Host) error { return h.OpenGate("gated-unknown-1") })
}
