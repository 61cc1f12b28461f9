package keeper

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"torpor/host"
)

// BeginProbe says that a healthcheck is about to run in a container. Until
// EndProbe, or the limit, the service does not fall asleep by itself, and what
// happens counts neither as activity nor as quiet. It returns false for a
// service that is not awake: it shall not be probed.
func (c *Client) BeginProbe(ctx context.Context, id host.ContainerID, limit time.Duration) (bool, error) {
	var begun bool
	err := c.wire.Call(ctx, http.MethodPost, path(id, "probe")+"?limit="+url.QueryEscape(limit.String()), nil, &begun)
	return begun, err
}

// EndProbe ends what BeginProbe began.
func (c *Client) EndProbe(ctx context.Context, id host.ContainerID) error {
	return c.wire.Call(ctx, http.MethodPost, path(id, "probed"), nil, nil)
}

// probe is a healthcheck that runs in the container, until it ends or its
// limit has passed: the daemon may have died meanwhile.
type probe struct {
	until    time.Time
	activeAt time.Time // of the idleness before
	why      string
}

func (p *probe) running(now time.Time) bool { return now.Before(p.until) }

func (s *service) beginProbe(limit string) (bool, error) {
	if s.snapshot().State != host.Awake {
		return false, nil
	}
	d, err := time.ParseDuration(limit)
	if err != nil {
		return false, err
	}
	now := time.Now()
	if !s.probe.running(now) {
		if err := s.observe(now); err != nil { // what came before it counts
			return false, err
		}
		s.probe.activeAt, s.probe.why = s.idle.activeAt, s.idle.why
	}
	s.probe.until = now.Add(d)
	return true, nil
}

// endProbe takes the counters as they are now for the beginning.
func (s *service) endProbe() error {
	if s.probe.until.IsZero() {
		return nil
	}
	s.probe.until, s.idle.lastTime = time.Time{}, time.Time{}
	err := s.observe(time.Now())
	s.idle.activeAt, s.idle.why = s.probe.activeAt, s.probe.why
	return err
}
