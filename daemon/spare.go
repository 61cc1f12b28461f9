package daemon

import (
	"context"
	"fmt"
	"time"

	"torpor/host"
)

// A spare is a container made ahead for a service that starts from its ready
// checkpoint: network, file systems and namespaces, and a stub that waits, but
// no processes. Making a container takes most of the time of a start; filling
// a spare takes a few milliseconds. Its record says that it is one; a new
// daemon makes it anew.

// spares are the units of a service that are only spares, by number.
func (d *Daemon) spares(project host.ProjectName, service host.ServiceName) []*unit {
	var spares []*unit
	for _, u := range d.ofProject(project) {
		if u.service == service && u.seen().Spare {
			spares = append(spares, u)
		}
	}
	return spares
}

// refill makes the spares of a service that are missing, behind the caller.
func (d *Daemon) refill(project host.ProjectName, service host.ServiceName) {
	d.refilling.Go(func() {
		unlock, err := d.projects.lock(d.ending, project)
		if err != nil {
			return // the daemon ends
		}
		defer unlock()
		if err := d.makeSpares(d.ending, project, service); err != nil && d.ending.Err() == nil {
			d.log.Warn("make spares", "project", project, "service", service, "error", err)
		}
	})
}

func (d *Daemon) makeSpares(ctx context.Context, project host.ProjectName, service host.ServiceName) error {
	instances := d.instances(project, service)
	if len(instances) == 0 {
		return nil
	}
	r := instances[0].seen()
	if !r.startsReady() || d.containers.HasReady(&r) != nil {
		return nil
	}
	for _, u := range d.spares(project, service) {
		if err := u.try(func() error { return u.makeSpare(ctx) }); err != nil {
			return err
		}
	}
	for number := d.nextNumber(project, service); len(d.spares(project, service)) < r.Spec.Torpor.Spares; number++ {
		record := r.another(number)
		record.Spare = true
		u, err := d.create(record)
		if err != nil {
			return err
		}
		if err := u.try(func() error { return u.makeSpare(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// nextNumber is one that no instance and no spare of a service has or follows.
func (d *Daemon) nextNumber(project host.ProjectName, service host.ServiceName) int {
	next := 1
	for _, u := range d.ofProject(project) {
		if u.service == service {
			next = max(next, u.number+1)
		}
	}
	return next
}

// makeSpare makes the spare's container unless it is there.
func (u *unit) makeSpare(ctx context.Context) error {
	if u.init != 0 || !u.record.Spare {
		return nil
	}
	u.daemon.starts <- struct{}{}
	defer func() { <-u.daemon.starts }()
	var err error
	if u.init, err = u.daemon.containers.MakeSpare(ctx, u.record); err != nil {
		u.init = 0
		u.complain("clear", u.daemon.containers.Clear(ctx, u.record))
		return fmt.Errorf("make spare %s: %w", u.id, err)
	}
	return u.save()
}

// fillSpare makes an instance of a spare. One that can not be filled is started
// like any other.
func (u *unit) fillSpare(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	u.record.Spare = false
	if u.init == 0 {
		return u.start(ctx)
	}
	u.become(host.Starting, "")
	u.record.Starting = true
	err := u.save()
	begun := time.Now()
	if err == nil {
		err = u.daemon.containers.FillSpare(ctx, u.record)
	}
	if err == nil {
		err = u.afterRestore(ctx)
	}
	u.record.Starting = false
	if err != nil {
		u.explainCold(err)
		u.init = 0
		u.become(host.Failed, err.Error())
		return u.start(ctx)
	}
	u.record.Started, u.record.ExitCode = time.Now(), 0
	u.restored(begun)
	u.become(host.Awake, "")
	return u.save()
}

// dropSpare ends a spare; it has no processes that could be told.
func (u *unit) dropSpare(ctx context.Context) error {
	err := u.daemon.containers.Clear(ctx, u.record)
	u.init = 0
	return err
}
