package checkpoint

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torpor/kernel/inet"
)

// inNetwork runs f on a thread in the tree's network namespace. Sockets that f
// makes stay in it.
func (tree *testTree) inNetwork(f func() error) {
	tree.t.Helper()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", tree.init.Process.Pid))
		if err != nil {
			failed <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			failed <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		failed <- f()
	}()
	if err := <-failed; err != nil {
		tree.t.Fatal(err)
	}
}

// loopbackUp sets the loopback interface of the tree's namespace up.
func (tree *testTree) loopbackUp() {
	tree.t.Helper()
	tree.inNetwork(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		request, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
	})
}

// client is one connection into the tree that stays open.
type client struct {
	t    *testing.T
	conn net.Conn
	read *bufio.Reader
}

// dial connects to an address inside the tree's network namespace, as soon as
// somebody listens there.
func (tree *testTree) dial(network, address string) *client {
	tree.t.Helper()
	c := &client{t: tree.t}
	tree.inNetwork(func() error {
		var err error
		for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if c.conn, err = net.Dial(network, address); err == nil {
				c.read = bufio.NewReader(c.conn)
				return nil
			}
		}
		return err
	})
	tree.t.Cleanup(func() { c.conn.Close() })
	return c
}

// send writes text.
func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// line reads one line, without its end.
func (c *client) line() string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	text, err := c.read.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read answer: %v (got %q)", err, text)
	}
	return strings.TrimRight(text, "\r\n")
}

// get asks for a path by HTTP without closing the connection.
func (c *client) get(path string) {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n")
}

// response reads an HTTP response and returns its body.
func (c *client) response() string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	response, err := http.ReadResponse(c.read, nil)
	if err != nil {
		c.t.Fatalf("read response: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatalf("read response: %v", err)
	}
	if response.StatusCode != http.StatusOK || response.Close {
		c.t.Fatalf("response is %s (close %v): %s", response.Status, response.Close, body)
	}
	return string(body)
}

// wantGet asks for a path and wants this body.
func (c *client) wantGet(path, want string) {
	c.t.Helper()
	c.get(path)
	if got := c.response(); got != want {
		c.t.Fatalf("answer to %s is %.100q, want %q", path, got, want)
	}
}

// waitListening waits until the tree listens on a TCP port.
func (tree *testTree) waitListening(port uint16) {
	tree.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		ports, err := inet.Listening(tree.holder.PID)
		if err != nil {
			tree.t.Fatal(err)
		}
		if slices.Contains(ports, inet.Port{Protocol: "tcp", Number: port}) {
			return
		}
	}
	tree.t.Fatalf("the program does not listen on port %d", port)
}
