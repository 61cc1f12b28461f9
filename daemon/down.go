package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"torpor/host"
)

// DownRequest asks for the end of a project.
type DownRequest struct {
	Project host.ProjectName `json:"project"`
	Volumes bool             `json:"volumes,omitempty"` // also its named volumes
	Stop    StopOptions      `json:"stop"`
}

// down removes the project's containers, networks and, if asked, volumes.
func (d *Daemon) down(ctx context.Context, request DownRequest, tell func(Progress)) error {
	unlock, err := d.projects.lock(ctx, request.Project)
	if err != nil {
		return err
	}
	defer unlock()
	units := d.ofProject(request.Project)
	if request.Project == "" || len(units) == 0 {
		return fmt.Errorf("end project %q: nothing of it is here: %w", request.Project, host.ErrNotFound)
	}
	networks := map[string]bool{}
	for _, u := range units {
		for _, n := range u.seen().Networks {
			networks[n.Name] = true
		}
	}
	err = d.eachDependentFirst(ctx, units, func(ctx context.Context, u *unit) error {
		tell(Progress{Subject: string(u.id), What: "stopping"})
		if err := d.removeUnit(ctx, u, removal{stop: request.Stop, volumes: request.Volumes, ready: request.Volumes}); err != nil {
			return err
		}
		tell(Progress{Subject: string(u.id), What: "removed"})
		return nil
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		errs = append(errs, d.supplies.RemoveNetwork(name))
	}
	return errors.Join(append(errs, d.writeHosts())...)
}

// removal says how a unit is removed.
type removal struct {
	stop    StopOptions
	volumes bool // with the volumes that no other unit has
	ready   bool // with the service's ready checkpoint
}

// removeUnit stops a service and takes its container away. Its volumes go
// before its record, so that a killed daemon can be asked again.
func (d *Daemon) removeUnit(ctx context.Context, u *unit, how removal) error {
	err := u.try(func() error {
		if err := u.stop(ctx, how.stop); err != nil {
			return err
		}
		return d.containers.Clear(context.WithoutCancel(ctx), u.record)
	})
	if err != nil {
		return err
	}
	d.removing.Lock() // of two that share a volume, one is the last
	defer d.removing.Unlock()
	err = u.try(func() error {
		if err := d.giveUpVolumes(u, how.volumes); err != nil {
			return err
		}
		if how.ready {
			if err := d.config.dropReady(u.project, u.service); err != nil {
				return err
			}
		}
		return u.remove()
	})
	if err != nil {
		return err
	}
	d.dropUnit(u)
	return nil
}

// giveUpVolumes releases the volumes of which a unit is the last user, or
// removes them.
func (d *Daemon) giveUpVolumes(u *unit, remove bool) error {
	used := map[string]bool{}
	for _, other := range d.all() {
		if other == u {
			continue
		}
		for _, v := range other.seen().Volumes {
			used[v.Name] = true
		}
	}
	record := u.seen()
	for _, v := range record.Volumes {
		if used[v.Name] || v.Torpor == nil && !v.External {
			continue
		}
		if err := d.supplies.ReleaseVolume(v.Name); err != nil {
			return err
		}
	}
	if !remove {
		return nil
	}
	for _, name := range record.ownVolumes() {
		if used[name] {
			continue
		}
		if err := d.supplies.RemoveVolume(name); err != nil {
			return err
		}
	}
	return nil
}

// eachDependentFirst does f to units, each after those of them that depend on
// it. All are done, whatever fails.
func (d *Daemon) eachDependentFirst(ctx context.Context, units []*unit, f func(context.Context, *unit) error) error {
	plan := map[string]step{}
	var mu sync.Mutex
	var errs []error
	for _, u := range units {
		plan[string(u.id)] = step{do: func(ctx context.Context) error {
			if err := f(ctx, u); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		}}
	}
	for _, u := range units {
		for _, dependency := range u.seen().Spec.DependsOn {
			for _, other := range units {
				if other.project == u.project && other.service == dependency.Service {
					s := plan[string(other.id)]
					s.after = append(s.after, string(u.id))
					plan[string(other.id)] = s
				}
			}
		}
	}
	err := walk(ctx, plan)
	return errors.Join(append(errs, err)...)
}
