package keeper

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"torpor/host"
	"torpor/wire"
)

// Client talks to a keeper. It may be used from several goroutines at once.
type Client struct{ wire *wire.Client }

// Dial returns a client of the keeper at a socket, and an error if none
// answers there.
func Dial(ctx context.Context, socketPath string) (*Client, error) {
	c := &Client{wire.NewClient(socketPath)}
	if _, err := c.Status(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("reach keeper at %s: %w", socketPath, err)
	}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.wire.Close() }

// Adopt hands a container to the keeper: logs are copied, its exit is watched,
// it falls asleep. Doing it again changes the settings.
func (c *Client) Adopt(ctx context.Context, t Target) error {
	return c.wire.Call(ctx, http.MethodPost, "/v1/adopt", t, nil)
}

// Forget ends the care for a container and drops its checkpoint. An unknown
// one is not an error.
func (c *Client) Forget(ctx context.Context, id host.ContainerID) error {
	return c.wire.Call(ctx, http.MethodPost, path(id, "forget"), nil, nil)
}

// Sleep puts a service to sleep. A *host.Refusal says why it can not; it then
// runs on unharmed.
func (c *Client) Sleep(ctx context.Context, id host.ContainerID) (SleepReport, error) {
	var report SleepReport
	err := c.wire.Call(ctx, http.MethodPost, path(id, "sleep"), nil, &report)
	return report, err
}

// Wake wakes a service; the reason is shown to people.
func (c *Client) Wake(ctx context.Context, id host.ContainerID, reason string) (WakeReport, error) {
	var report WakeReport
	err := c.wire.Call(ctx, http.MethodPost, path(id, "wake")+"?reason="+url.QueryEscape(reason), nil, &report)
	return report, err
}

// Activity begins a new quiet time: somebody uses the service by other means
// than packets.
func (c *Client) Activity(ctx context.Context, id host.ContainerID) error {
	return c.wire.Call(ctx, http.MethodPost, path(id, "activity"), nil, nil)
}

// Status returns what the keeper knows of its containers.
func (c *Client) Status(ctx context.Context) ([]Status, error) {
	var all []Status
	err := c.wire.Call(ctx, http.MethodGet, "/v1/status", nil, &all)
	return all, err
}

// Sockets returns what is known of a container's connections; brief leaves out
// the list of them.
func (c *Client) Sockets(ctx context.Context, id host.ContainerID, brief bool) (SocketReport, error) {
	var report SocketReport
	at := path(id, "sockets")
	if brief {
		at += "?brief=1"
	}
	err := c.wire.Call(ctx, http.MethodGet, at, nil, &report)
	return report, err
}

// Watch calls f for each event until the context ends or the keeper goes.
func (c *Client) Watch(ctx context.Context, f func(host.Event)) error {
	return c.wire.Watch(ctx, "/v1/events", f)
}

func path(id host.ContainerID, verb string) string {
	return "/v1/" + url.PathEscape(string(id)) + "/" + verb
}
