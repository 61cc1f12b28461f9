package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// connection is one HTTP connection that stays open.
type connection struct {
	m      *machine
	conn   net.Conn
	reader *bufio.Reader
}

// connect opens a connection, as soon as somebody listens.
func (m *machine) connect(address string) *connection {
	m.t.Helper()
	c := &connection{m: m}
	m.eventually("connect to "+address, func() error {
		conn, err := net.DialTimeout("tcp", address, patience)
		c.conn = conn
		return err
	})
	m.t.Cleanup(func() { c.conn.Close() })
	c.reader = bufio.NewReader(c.conn)
	return c
}

// try asks for a path; the answer is a line.
func (c *connection) try(path string) (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return strings.TrimSpace(string(body)), err
}

// get is try that has to be answered.
func (c *connection) get(path string) string {
	c.m.t.Helper()
	answer, err := c.try(path)
	if err != nil {
		c.m.t.Fatalf("get %s: %v\ndaemon: %s", path, err, c.m.daemonLog)
	}
	return answer
}

// want fails the test unless a path is answered by text.
func (c *connection) want(path, text string) {
	c.m.t.Helper()
	if got := c.get(path); got != text {
		c.m.t.Fatalf("get %s: %q, want %q", path, got, text)
	}
}
