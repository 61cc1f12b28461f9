package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"torpor/container"
	"torpor/host"
)

// runHook tells a service that it will be checkpointed, or was restored, and
// waits for its answer. No hook is no error.
func (u *unit) runHook(ctx context.Context, r *Record, h *host.Hook) error {
	if h == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	switch {
	case h.Port != 0:
		return u.daemon.containers.Request(ctx, r, h.Port, h.Path)
	case len(h.Exec) > 0:
		return u.daemon.containers.Run(ctx, r.ID, container.ExecSpec{Args: h.Exec})
	}
	status, err := u.keeperStatus(ctx)
	if err != nil {
		return err
	}
	return u.daemon.containers.Signal(status.MainPID, h.Signal)
}

// Request implements containers.
func (b *builder) Request(ctx context.Context, r *Record, port uint16, path string) error {
	dial := func(_ context.Context, _, _ string) (conn net.Conn, err error) {
		deadline, _ := ctx.Deadline()
		err = b.network.In(r.ID, func() error {
			// By this thread alone, which is in the container's network.
			conn, err = (&net.Dialer{Deadline: deadline}).Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
			return err
		})
		return conn, err
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("request %s: answered by %s", path, response.Status)
	}
	return nil
}
