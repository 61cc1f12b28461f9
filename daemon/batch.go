package daemon

import (
	"context"
	"fmt"

	"torpor/host"
)

// BatchRequest asks for one thing to be done to several containers.
type BatchRequest struct {
	IDs  []host.ContainerID `json:"ids"`
	Stop StopOptions        `json:"stop"`
}

// named returns the units of a request.
func (d *Daemon) named(ids []host.ContainerID) ([]*unit, error) {
	var units []*unit
	for _, id := range ids {
		u := d.unit(id)
		if u == nil {
			return nil, fmt.Errorf("find service %s: %w", id, host.ErrNotFound)
		}
		units = append(units, u)
	}
	return units, nil
}

// startAll starts containers, each after those that it depends on.
func (d *Daemon) startAll(ctx context.Context, request BatchRequest, tell func(Progress)) error {
	units, err := d.named(request.IDs)
	if err != nil {
		return err
	}
	byName := map[host.ProjectName]map[host.ServiceName][]*unit{}
	for _, u := range units {
		if byName[u.project] == nil {
			byName[u.project] = map[host.ServiceName][]*unit{}
		}
		byName[u.project][u.service] = append(byName[u.project][u.service], u)
	}
	for _, project := range byName {
		plan := map[string]step{}
		for _, instances := range project {
			for _, u := range instances {
				plan[string(u.id)] = d.startStep(u, u.seen().Spec.DependsOn, project, nil, tell)
			}
		}
		if err := walk(ctx, plan); err != nil {
			return err
		}
	}
	return nil
}

// stopAll stops containers, each after those that depend on it.
func (d *Daemon) stopAll(ctx context.Context, request BatchRequest, tell func(Progress)) error {
	units, err := d.named(request.IDs)
	if err != nil {
		return err
	}
	return d.eachDependentFirst(ctx, units, func(ctx context.Context, u *unit) error {
		tell(Progress{Subject: string(u.id), What: "stopping"})
		if err := u.try(func() error { return u.stop(ctx, request.Stop) }); err != nil {
			return err
		}
		_, reason, _ := u.snapshot()
		tell(Progress{Subject: string(u.id), What: "stopped", Detail: detailOfStop(reason)})
		return nil
	})
}

func detailOfStop(reason string) string {
	if reason == "stopped" {
		return ""
	}
	return reason
}

// restartAll stops containers and starts them again, with those that follow
// them by depends_on's restart.
func (d *Daemon) restartAll(ctx context.Context, request BatchRequest, tell func(Progress)) error {
	units, err := d.named(request.IDs)
	if err != nil {
		return err
	}
	in := map[*unit]bool{}
	for _, u := range units {
		in[u] = true
	}
	for i := 0; i < len(units); i++ {
		for _, other := range d.ofProject(units[i].project) {
			for _, dependency := range other.seen().Spec.DependsOn {
				if state, _, _ := other.snapshot(); !in[other] && dependency.Restart && dependency.Service == units[i].service && state == host.Awake {
					in[other] = true
					units = append(units, other)
				}
			}
		}
	}
	request.IDs = nil
	for _, u := range units {
		request.IDs = append(request.IDs, u.id)
	}
	if err := d.stopAll(ctx, request, tell); err != nil {
		return err
	}
	return d.startAll(ctx, request, tell)
}

// removeAll removes containers; those that run are refused unless Stop says
// how to stop them.
func (d *Daemon) removeAll(ctx context.Context, request RemoveRequest, tell func(Progress)) error {
	units, err := d.named(request.IDs)
	if err != nil {
		return err
	}
	if !request.Force {
		refusal := &host.Refusal{}
		for _, u := range units {
			if state, _, _ := u.snapshot(); state.Live() {
				refusal.Reasons = append(refusal.Reasons, fmt.Sprintf("%s is %s; stop it first, or use --force", u.id, state))
			}
		}
		if len(refusal.Reasons) > 0 {
			return refusal
		}
	}
	err = d.eachDependentFirst(ctx, units, func(ctx context.Context, u *unit) error {
		unlock, err := d.projects.lock(ctx, u.project)
		if err != nil {
			return err
		}
		defer unlock()
		if err := d.removeUnit(ctx, u, removal{stop: request.Stop}); err != nil {
			return err
		}
		tell(Progress{Subject: string(u.id), What: "removed"})
		return nil
	})
	d.sweepNetworks()
	return err
}

// RemoveRequest asks for containers to be removed. Their volumes stay.
type RemoveRequest struct {
	BatchRequest
	Force bool `json:"force,omitempty"` // also those that run, which are stopped
}
