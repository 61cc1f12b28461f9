package keeper

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"torpor/host"
	"torpor/internal/initproc"
	"torpor/internal/kerneltest"
)

// preforkServer is a master and two workers that accept on one socket, each by
// an epoll set of its own, as nginx does.
const preforkServer = `
import os, select, socket
listening = socket.create_server(("0.0.0.0", 8000))
listening.setblocking(False)
workers = [os.fork() for _ in range(2)]
if all(workers):
    print("listening", flush=True)
    os.wait()
poll = select.epoll()
poll.register(listening, select.EPOLLIN | select.EPOLLEXCLUSIVE)
while True:
    poll.poll()
    try:
        peer, _ = listening.accept()
    except BlockingIOError:
        continue
    peer.setblocking(True)
    peer.recv(1000)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanswer\n")
    peer.close()
`

// A socket that several processes share is watched once; the descriptor of
// each of them has the same slot.
func TestNewConnectionWakesWorkers(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("/usr/bin/python3"))
	state := t.TempDir()
	p := initproc.ForTest(t, "/usr/bin/python3", "-c", preforkServer)
	k := startKeeper(t, Config{Socket: filepath.Join(t.TempDir(), "keeper.sock"), StateDir: state})
	target := testTarget(p, state)
	if err := os.MkdirAll(filepath.Dir(target.LogPath), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := k.Adopt(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		k.expect(host.EventSleep)
		conn, err := p.Dial(8000)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&keepAlive{t, conn, bufio.NewReader(conn)}).get(); got != "answer" {
			t.Errorf("got %q", got)
		}
		conn.Close()
		if e := k.expect(host.EventWake); e.Reason != "connection to 0.0.0.0:8000" {
			t.Errorf("woken by %q", e.Reason)
		}
	}
	if err := k.Forget(t.Context(), target.ID); err != nil {
		t.Error(err)
	}
}

// datagramServer answers datagrams, and lines on one connection.
const datagramServer = `
import select, socket
listening = socket.create_server(("0.0.0.0", 8000))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", 8000))
print("listening", flush=True)
connection, _ = listening.accept()
while True:
    for s in select.select([datagrams, connection], [], [])[0]:
        data, peer = s.recvfrom(1000)
        s.sendto(data, peer) if s is datagrams else s.sendall(data)
`

// What came while a service slept is answered, and said in the reason.
func TestReasonsToWake(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("/usr/bin/python3"))
	state := t.TempDir()
	p := initproc.ForTest(t, "/usr/bin/python3", "-c", datagramServer)
	k := startKeeper(t, Config{Socket: filepath.Join(t.TempDir(), "keeper.sock"), StateDir: state})
	target := testTarget(p, state)
	if err := os.MkdirAll(filepath.Dir(target.LogPath), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := k.Adopt(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	conn, err := p.Dial(8000)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	datagrams, err := p.DialUDP(8000)
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	for range 3 {
		for _, by := range []struct {
			conn   net.Conn
			reason string
		}{
			{conn, "packet on the connection with " + conn.LocalAddr().String()},
			{datagrams, "datagram for 0.0.0.0:8000"},
		} {
			k.expect(host.EventSleep)
			if _, err := by.conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 100)
			by.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := by.conn.Read(answer); err != nil || string(answer[:n]) != "hello" {
				t.Fatalf("answer %q, %v", answer[:n], err)
			}
			if e := k.expect(host.EventWake); e.Reason != by.reason {
				t.Errorf("woken by %q, want %q", e.Reason, by.reason)
			}
		}
	}
	if err := k.Forget(t.Context(), target.ID); err != nil {
		t.Error(err)
	}
}
