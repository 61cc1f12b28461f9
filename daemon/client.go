package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"torpor/host"
	"torpor/image"
	"torpor/keeper"
	"torpor/wire"
)

// Client is the command line's side of the API. It may be used from several
// goroutines at once.
type Client struct {
	wire   *wire.Client
	socket string
}

// NewClient returns a client of the daemon at a socket. Whether one answers
// shows at the first call: host.ErrDaemonDown.
func NewClient(socket string) *Client { return &Client{wire.NewClient(socket), socket} }

// down explains a socket at which nobody answers.
func (c *Client) explain(err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("reach daemon at %s: %w; start it with: sudo torpor serve", c.socket, host.ErrDaemonDown)
	}
	if errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("reach daemon at %s: %w; it needs root (sudo)", c.socket, err)
	}
	return err
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	return c.explain(c.wire.Call(ctx, method, path, in, out))
}

// lines calls f with each line of a streamed answer.
func (c *Client) lines(ctx context.Context, method, path string, in any, f func([]byte) error) error {
	err := c.wire.Lines(ctx, method, path, in, f)
	if ctx.Err() != nil {
		return nil
	}
	return c.explain(err)
}

// progress runs a streamed request and returns its error.
func (c *Client) progress(ctx context.Context, path string, in any, tell func(Progress)) error {
	done := false
	err := c.lines(ctx, http.MethodPost, path, in, func(line []byte) error {
		var p Progress
		if err := json.Unmarshal(line, &p); err != nil {
			return fmt.Errorf("decode progress: %w", err)
		}
		switch {
		case p.Error != "":
			return wire.Restore(p.Error, p.Kind)
		case p.Done:
			done = true
		default:
			tell(p)
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && !done:
		return errors.New("reach daemon: it ended before it was done; when it runs again, repeat the command")
	}
	return err
}

// Up makes a project's services run.
func (c *Client) Up(ctx context.Context, r UpRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/up", r, tell)
}

// Down ends a project.
func (c *Client) Down(ctx context.Context, r DownRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/down", r, tell)
}

// Services returns the containers of a project, all for "".
func (c *Client) Services(ctx context.Context, project host.ProjectName) ([]ServiceStatus, error) {
	var all []ServiceStatus
	err := c.call(ctx, http.MethodGet, "/v1/services?project="+url.QueryEscape(string(project)), nil, &all)
	return all, err
}

// ServicesWithConnections is Services with what the keeper knows of their
// connections.
func (c *Client) ServicesWithConnections(ctx context.Context, project host.ProjectName) ([]ServiceStatus, error) {
	var all []ServiceStatus
	err := c.call(ctx, http.MethodGet, "/v1/services?connections=1&project="+url.QueryEscape(string(project)), nil, &all)
	return all, err
}

// Sockets lists the connections of a container. host.ErrNotFound: none, for it
// does not run.
func (c *Client) Sockets(ctx context.Context, id host.ContainerID) (keeper.SocketReport, error) {
	var report keeper.SocketReport
	err := c.call(ctx, http.MethodGet, servicePath(id, "sockets"), nil, &report)
	return report, err
}

func servicePath(id host.ContainerID, verb string) string {
	return "/v1/services/" + url.PathEscape(string(id)) + "/" + verb
}

// Sleep puts a service to sleep; a *host.Refusal says why it can not.
func (c *Client) Sleep(ctx context.Context, id host.ContainerID) (keeper.SleepReport, error) {
	var report keeper.SleepReport
	err := c.call(ctx, http.MethodPost, servicePath(id, "sleep"), nil, &report)
	return report, err
}

// Wake wakes a service.
func (c *Client) Wake(ctx context.Context, id host.ContainerID) (keeper.WakeReport, error) {
	var report keeper.WakeReport
	err := c.call(ctx, http.MethodPost, servicePath(id, "wake"), nil, &report)
	return report, err
}

// Start starts containers, each after those that it depends on.
func (c *Client) Start(ctx context.Context, r BatchRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/start", r, tell)
}

// Stop stops containers, each after those that depend on it.
func (c *Client) Stop(ctx context.Context, r BatchRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/stop", r, tell)
}

// Restart stops and starts containers.
func (c *Client) Restart(ctx context.Context, r BatchRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/restart", r, tell)
}

// Remove removes containers; without Force a *host.Refusal names those that
// run.
func (c *Client) Remove(ctx context.Context, r RemoveRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/remove", r, tell)
}

// Exec wakes a service and returns the command line that runs a command in it.
func (c *Client) Exec(ctx context.Context, id host.ContainerID, r ExecRequest) ([]string, error) {
	var args []string
	err := c.call(ctx, http.MethodPost, servicePath(id, "exec"), r, &args)
	return args, err
}

// Logs calls f for the lines of containers' logs.
func (c *Client) Logs(ctx context.Context, ids []host.ContainerID, o LogOptions, f func(NamedLine)) error {
	q := url.Values{}
	for _, id := range ids {
		q.Add("id", string(id))
	}
	if o.Tail >= 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if o.Follow {
		q.Set("follow", "1")
	}
	return c.lines(ctx, http.MethodGet, "/v1/logs?"+q.Encode(), nil, func(b []byte) error {
		var line NamedLine
		if err := json.Unmarshal(b, &line); err != nil {
			return fmt.Errorf("decode log: %w", err)
		}
		f(line)
		return nil
	})
}

// Events calls f for the latest events and, with follow, for those to come.
func (c *Client) Events(ctx context.Context, follow bool, f func(host.Event)) error {
	path := "/v1/events"
	if follow {
		path += "?follow=1"
	}
	return c.lines(ctx, http.MethodGet, path, nil, func(b []byte) error {
		var e host.Event
		if err := json.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		f(e)
		return nil
	})
}

// Images lists the images of the store.
func (c *Client) Images(ctx context.Context) ([]image.Image, error) {
	var all []image.Image
	err := c.call(ctx, http.MethodGet, "/v1/images", nil, &all)
	return all, err
}

// PullImage brings an image from its registry into the store.
func (c *Client) PullImage(ctx context.Context, r ImageRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/images/pull", r, tell)
}

// ImportImages brings the images of a file into the store.
func (c *Client) ImportImages(ctx context.Context, r ImageRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/images/import", r, tell)
}

// RemoveImage removes an image from the store.
func (c *Client) RemoveImage(ctx context.Context, r ImageRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/images/remove", r, nil)
}

// Clone makes more instances of a service.
func (c *Client) Clone(ctx context.Context, r CloneRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/clone", r, tell)
}

// Checkpoints lists the ready checkpoints.
func (c *Client) Checkpoints(ctx context.Context) ([]CheckpointStatus, error) {
	var all []CheckpointStatus
	err := c.call(ctx, http.MethodGet, "/v1/checkpoints", nil, &all)
	return all, err
}

// RemoveCheckpoint forgets a service's ready checkpoint.
func (c *Client) RemoveCheckpoint(ctx context.Context, r CheckpointRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/checkpoints/remove", r, nil)
}

// CheckCheckpoint reads all of a ready checkpoint and says what is wrong.
func (c *Client) CheckCheckpoint(ctx context.Context, r CheckpointRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/checkpoints/check", r, nil)
}
