package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"torpor/host"
)

// Client is HTTP with JSON over a Unix socket. It may be used from several
// goroutines at once.
type Client struct{ http *http.Client }

// NewClient returns a wire to a socket; nothing is opened yet.
func NewClient(socketPath string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketPath)
		},
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call sends in and decodes the answer into out, unless that is nil.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	response, err := c.Send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// Send returns the response of a successful request; the caller closes its
// body.
func (c *Client) Send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://torpor"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var f failure
	if err := json.NewDecoder(response.Body).Decode(&f); err != nil {
		return nil, fmt.Errorf("request was answered by %s", response.Status)
	}
	return nil, f.err()
}

// longestLine bounds a line of a streamed answer.
const longestLine = 16 << 20

// Lines calls f with each line of a streamed answer, until f returns an error.
func (c *Client) Lines(ctx context.Context, method, path string, in any, f func([]byte) error) error {
	response, err := c.Send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	scanner := bufio.NewScanner(response.Body)
	scanner.Buffer(make([]byte, 64<<10), longestLine)
	for scanner.Scan() {
		if err := f(scanner.Bytes()); err != nil {
			return err
		}
	}
	return scanner.Err()
}

// Watch calls f for each event that a Broadcast at path sends, until the context
// ends or the other process goes.
func (c *Client) Watch(ctx context.Context, path string, f func(host.Event)) error {
	return c.Lines(ctx, http.MethodGet, path, nil, func(line []byte) error {
		var event host.Event
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		f(event)
		return nil
	})
}

// Listen makes the socket that a process answers at. What is left of an
// earlier process is only its name: callers know that none answers there.
func Listen(socketPath string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socketPath), 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	if err := os.Remove(socketPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := net.Listen("unix", socketPath)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(socketPath, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}
