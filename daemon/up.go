package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"torpor/host"
)

// UpRequest asks for the services of a project.
type UpRequest struct {
	Project       host.ProjectSpec `json:"project"`
	ForceRecreate bool             `json:"force_recreate,omitempty"`
	NoStart       bool             `json:"no_start,omitempty"` // make records only
	Wait          bool             `json:"wait,omitempty"`     // until every service is healthy

	// Known are all services of the file, also those that Project leaves out;
	// others of the project are orphans. Empty: orphans are not looked for.
	Known         []host.ServiceName `json:"known,omitempty"`
	RemoveOrphans bool               `json:"remove_orphans,omitempty"`
}

// Progress is one step of a long request. The last one says that it is done,
// or holds the error of a request that failed; without either of them, the
// daemon has ended meanwhile.
type Progress struct {
	Subject string `json:"subject,omitempty"` // container, network, image
	What    string `json:"what,omitempty"`    // "created", "started", "unchanged", ...
	Detail  string `json:"detail,omitempty"`
	Error   string `json:"error,omitempty"`
	Kind    string `json:"kind,omitempty"` // of the error
	Done    bool   `json:"done,omitempty"`

	DoneBytes  int64           `json:"done_bytes,omitempty"` // how far it is, where that is known
	TotalBytes int64           `json:"total_bytes,omitempty"`
	Result     json.RawMessage `json:"result,omitempty"` // of a job
}

// up makes the project's services run as its spec says.
func (d *Daemon) up(ctx context.Context, request UpRequest, tell func(Progress)) error {
	p := &request.Project
	if p.Name == "" {
		return fmt.Errorf("start project: it has no name: %w", host.ErrInvalid)
	}
	unlock, err := d.projects.lock(ctx, p.Name)
	if err != nil {
		return err
	}
	defer unlock()
	defer d.sweepNetworks() // of an up that failed before anything was on them
	order, err := startOrder(p.Services)
	if err != nil {
		return err
	}
	if err := d.orphans(ctx, request, tell); err != nil {
		return err
	}
	units := map[host.ServiceName][]*unit{}
	again := map[host.ServiceName]bool{} // made anew
	for _, spec := range order {
		if units[spec.Name], again[spec.Name], err = d.prepareAll(ctx, p, spec, request.ForceRecreate, tell); err != nil {
			return fmt.Errorf("service %s: %w", spec.Name, err)
		}
	}
	if err := d.writeHosts(); err != nil {
		return err
	}
	if request.NoStart {
		return nil
	}
	plan := map[string]step{}
	for _, spec := range order {
		for _, u := range units[spec.Name] {
			plan[string(u.id)] = d.startStep(u, spec.DependsOn, units, again, tell)
		}
	}
	if err := walk(ctx, plan); err != nil {
		return err
	}
	if err := d.writeHosts(); err != nil { // spares that were filled have new names
		return err
	}
	if !request.Wait {
		return nil
	}
	for _, spec := range order {
		if err := awaitAll(ctx, units[spec.Name], host.DependsHealthy); err != nil {
			return fmt.Errorf("service %s: %w", spec.Name, err)
		}
	}
	return nil
}

// containerID names an instance of a service.
func containerID(project host.ProjectName, service host.ServiceName, number int) host.ContainerID {
	return host.ContainerID(fmt.Sprintf("%s-%s-%d", project, service, number))
}

// prepare makes or updates the record of an instance. A container whose service
// has changed is removed, to be made anew. It returns whether it is new.
func (d *Daemon) prepare(ctx context.Context, p *host.ProjectSpec, spec host.ServiceSpec, number int, img imageDefaults, force bool, tell func(Progress)) (*unit, bool, error) {
	r, err := newRecord(p, spec, number, img)
	if err != nil {
		return nil, false, err
	}
	if err := d.nameIsFree(r); err != nil {
		return nil, false, err
	}
	if u := d.unit(r.ID); u != nil {
		if old := u.seen(); old.Hash == r.Hash && old.Image.ID == r.Image.ID && !force {
			return u, false, u.try(func() error {
				u.record.Spec.DependsOn, u.record.Spec.Scale = spec.DependsOn, spec.Scale
				return d.supplies.TakeSecrets(r.ID, &spec) // they are lost with the machine's memory
			})
		}
		tell(Progress{Subject: string(r.ID), What: "recreating"})
		if err := d.removeUnit(ctx, u, removal{}); err != nil {
			return nil, false, err
		}
	}
	u, err := d.create(r)
	if err != nil {
		return nil, false, err
	}
	tell(Progress{Subject: string(r.ID), What: "created"})
	return u, true, nil
}

// create takes a new record into care. It is on disk before anything is given
// to it, so that a killed daemon leaves nothing that the next does not find.
func (d *Daemon) create(r *Record) (*unit, error) {
	if err := d.supplies.TakeSecrets(r.ID, &r.Spec); err != nil {
		return nil, err
	}
	if err := r.save(d.config.serviceDir(r.ID)); err != nil {
		return nil, err
	}
	u := d.addUnit(r)
	err := u.try(func() error {
		if err := d.supplies.Reserve(u.record); err != nil {
			return errors.Join(err, u.remove())
		}
		return u.save()
	})
	if err != nil {
		d.dropUnit(u)
		return nil, err
	}
	u.event(host.EventCreate, "", nil)
	return u, nil
}

// nameIsFree checks that no other container goes by the same names.
func (d *Daemon) nameIsFree(r *Record) error {
	for _, u := range d.all() {
		other := u.seen()
		if u.id == r.ID {
			if other.Spec.Project != r.Spec.Project || other.Spec.Name != r.Spec.Name {
				return fmt.Errorf("name container %s: service %s of project %s has that name: %w", r.ID, other.Spec.Name, other.Spec.Project, host.ErrExists)
			}
			continue
		}
		if name := r.Spec.ContainerName; name != "" && (name == other.Spec.ContainerName || name == string(u.id)) {
			return fmt.Errorf("name container %s: container %s has that container_name: %w", name, u.id, host.ErrExists)
		}
	}
	return nil
}

// startStep is the start of one instance behind all of those services that it
// depends on.
func (d *Daemon) startStep(u *unit, depends []host.Dependency, units map[host.ServiceName][]*unit, again map[host.ServiceName]bool, tell func(Progress)) step {
	s := step{}
	for _, dependency := range depends {
		for _, other := range units[dependency.Service] {
			s.after = append(s.after, string(other.id))
		}
	}
	s.do = func(ctx context.Context) error {
		restart := false
		for _, dependency := range depends {
			// None: not required, and left out by its profile.
			if err := awaitAll(ctx, units[dependency.Service], dependency.Condition); err != nil {
				if dependency.Required || ctx.Err() != nil {
					return fmt.Errorf("start %s: it depends on %s: %w", u.id, dependency.Service, err)
				}
				tell(Progress{Subject: string(u.id), What: "starting without " + string(dependency.Service), Detail: err.Error()})
			}
			restart = restart || dependency.Restart && again[dependency.Service]
		}
		return u.try(func() error { return u.upStart(ctx, restart, tell) })
	}
	return s
}

// upStart starts the unit unless it runs, and tells which.
func (u *unit) upStart(ctx context.Context, restart bool, tell func(Progress)) error {
	if u.init != 0 && restart {
		tell(Progress{Subject: string(u.id), What: "restarting"})
		if err := u.stop(ctx, StopOptions{}); err != nil {
			return err
		}
	}
	what := "started"
	if u.init != 0 && !u.record.Spare {
		what = "running"
	}
	if err := u.wantStart(ctx); err != nil {
		return fmt.Errorf("service %s: %w", u.service, err)
	}
	tell(Progress{Subject: string(u.id), What: what, Detail: strings.Join(u.record.Ports, " ")})
	return nil
}

// awaitAll waits for a condition of all instances of a service.
func awaitAll(ctx context.Context, units []*unit, condition host.DependencyCondition) error {
	for _, u := range units {
		if err := u.awaitReady(ctx, condition); err != nil {
			return err
		}
	}
	return nil
}

// awaitReady waits for a condition of depends_on.
func (u *unit) awaitReady(ctx context.Context, condition host.DependencyCondition) error {
	return u.await(ctx, func(state host.State, healthy health) (bool, error) {
		r := u.seen()
		ended := state == host.Exited && !r.WantRunning // else it is started again
		switch {
		case state == host.Failed:
			_, reason, _ := u.snapshot()
			return false, fmt.Errorf("%s did not start: %s", u.id, reason)
		case condition == host.DependsCompleted && ended && r.ExitCode == 0:
			return true, nil
		case condition == host.DependsCompleted && ended:
			return false, fmt.Errorf("%s ended with %d", u.id, r.ExitCode)
		case condition == host.DependsCompleted:
			return false, nil
		case ended && condition != host.DependsHealthy:
			return true, nil // it was started
		case ended:
			return false, fmt.Errorf("%s ended with %d (torpor logs %s)", u.id, r.ExitCode, u.id)
		case condition == host.DependsHealthy && healthy == healthUnhealthy:
			return false, fmt.Errorf("%s is unhealthy (torpor logs %s)", u.id, u.id)
		case condition == host.DependsHealthy:
			return state == host.Awake && (healthy == healthHealthy || healthy == healthNone), nil
		}
		return state == host.Awake, nil
	})
}

// orphans removes, or tells of, services that the file has no more.
func (d *Daemon) orphans(ctx context.Context, request UpRequest, tell func(Progress)) error {
	if len(request.Known) == 0 {
		return nil
	}
	for _, u := range d.ofProject(request.Project.Name) {
		if slices.Contains(request.Known, u.service) {
			continue
		}
		if !request.RemoveOrphans {
			tell(Progress{Subject: string(u.id), What: "is not in the file any more", Detail: "(remove it by --remove-orphans)"})
			continue
		}
		tell(Progress{Subject: string(u.id), What: "removing", Detail: "not in the file any more"})
		if err := d.removeUnit(ctx, u, removal{}); err != nil {
			return err
		}
	}
	return nil
}
