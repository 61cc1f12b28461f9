package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"torpor/host"
)

// checkScale refuses what only one container can have.
func checkScale(spec *host.ServiceSpec) error {
	if spec.Scale <= 1 {
		return nil
	}
	if spec.ContainerName != "" {
		return fmt.Errorf("run %d instances: container_name %s is the name of one: %w", spec.Scale, spec.ContainerName, host.ErrInvalid)
	}
	for _, a := range spec.Networks {
		if a.IPv4 != "" || a.MAC != "" {
			return fmt.Errorf("run %d instances: the address on network %s is that of one: %w", spec.Scale, a.Network, host.ErrInvalid)
		}
	}
	return nil
}

// prepareAll makes or updates the records of a service's instances, and removes
// those that are more than wanted. It returns the instances, and whether any of
// them is new.
func (d *Daemon) prepareAll(ctx context.Context, p *host.ProjectSpec, spec host.ServiceSpec, force bool, tell func(Progress)) ([]*unit, bool, error) {
	if err := checkScale(&spec); err != nil {
		return nil, false, err
	}
	img, err := d.supplies.Image(ctx, p, &spec, tell)
	if err != nil {
		return nil, false, err
	}
	if err := d.scaleDown(ctx, p.Name, spec.Name, spec.Scale, tell); err != nil {
		return nil, false, err
	}
	if err := d.dropSpares(ctx, p, spec, img); err != nil {
		return nil, false, err
	}
	var units []*unit
	anyNew := false
	for number := 1; number <= spec.Scale; number++ {
		u, isNew, err := d.prepare(ctx, p, spec, number, img, force, tell)
		if err != nil {
			return nil, false, err
		}
		units, anyNew = append(units, u), anyNew || isNew
	}
	return units, anyNew, nil
}

// instances are the units of a service that are no spares, by number.
func (d *Daemon) instances(project host.ProjectName, service host.ServiceName) []*unit {
	units := slices.DeleteFunc(d.ofProject(project), func(u *unit) bool { return u.service != service || u.seen().Spare })
	slices.SortFunc(units, func(a, b *unit) int { return cmp.Compare(a.number, b.number) })
	return units
}

// scaleDown removes a service's instances beyond a number, the last first, with
// the volumes that only they have.
func (d *Daemon) scaleDown(ctx context.Context, project host.ProjectName, service host.ServiceName, keep int, tell func(Progress)) error {
	for _, u := range slices.Backward(d.instances(project, service)) {
		if u.number <= keep {
			continue
		}
		tell(Progress{Subject: string(u.id), What: "removing"})
		if err := d.removeUnit(ctx, u, removal{volumes: true}); err != nil {
			return err
		}
	}
	return nil
}

// dropSpares removes the spares of a service that has changed since.
func (d *Daemon) dropSpares(ctx context.Context, p *host.ProjectSpec, spec host.ServiceSpec, img imageDefaults) error {
	for _, u := range d.spares(p.Name, spec.Name) {
		wanted, err := newRecord(p, spec, u.number, img)
		if err != nil {
			return err
		}
		if is := u.seen(); is.Hash == wanted.Hash && is.Image.ID == wanted.Image.ID && spec.Scale > 0 {
			continue
		}
		if err := d.removeUnit(ctx, u, removal{volumes: true}); err != nil {
			return err
		}
	}
	return nil
}

// CloneRequest asks for more instances of a service, from its ready checkpoint.
type CloneRequest struct {
	ID  host.ContainerID `json:"id"`  // of any instance
	Add int              `json:"add"` // how many more
}

// clone makes more instances of a service. The next up makes as many as the
// file says.
func (d *Daemon) clone(ctx context.Context, request CloneRequest, tell func(Progress)) error {
	units, err := d.named([]host.ContainerID{request.ID})
	if err != nil {
		return err
	}
	u := units[0]
	unlock, err := d.projects.lock(ctx, u.project)
	if err != nil {
		return err
	}
	defer unlock()
	r := u.seen()
	all := d.instances(u.project, u.service)
	r.Spec.Scale = len(all) + request.Add
	switch err := checkScale(&r.Spec); {
	case request.Add < 1:
		return fmt.Errorf("clone %s: %d more: %w", u.id, request.Add, host.ErrInvalid)
	case err != nil:
		return err
	case !r.startsReady():
		return fmt.Errorf("clone %s: it has no ready checkpoint (x-torpor: {checkpoint: ready}): %w", u.id, host.ErrUnsupported)
	}
	if err := d.containers.HasReady(&r); err != nil {
		return fmt.Errorf("clone %s: it has no ready checkpoint that fits (torpor checkpoint ls; torpor restart %s makes one): %w", u.id, u.id, err)
	}
	defer d.refill(u.project, u.service)
	plan := map[string]step{}
	start := func(u *unit) {
		plan[string(u.id)] = step{do: func(ctx context.Context) error {
			return u.try(func() error { return u.upStart(ctx, false, tell) })
		}}
	}
	for _, spare := range d.spares(u.project, u.service) {
		if len(plan) < request.Add {
			start(spare)
		}
	}
	for len(plan) < request.Add {
		made, err := d.create(r.another(d.nextNumber(u.project, u.service)))
		if err != nil {
			return err
		}
		start(made)
	}
	err = walk(ctx, plan)
	return errors.Join(err, d.writeHosts())
}
