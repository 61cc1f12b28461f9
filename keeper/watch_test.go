package keeper

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"

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
		k.expect(host.EventWake)
	}
	if err := k.Forget(t.Context(), target.ID); err != nil {
		t.Error(err)
	}
}
