package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"torpor/host"
)

// UpRequest asks for the services of a project.
type UpRequest struct {
	Project       host.ProjectSpec `json:"project"`
	ForceRecreate bool             `json:"force_recreate,omitempty"`
	RemoveOrphans bool             `json:"remove_orphans,omitempty"`
	Wait          bool             `json:"wait,omitempty"` // until every service is healthy
}

// Progress is one step of a long request. The last one of a request that
// failed holds its error.
type Progress struct {
	Subject string `json:"subject,omitempty"` // container, network, image
	What    string `json:"what,omitempty"`    // "created", "started", "unchanged", ...
	Detail  string `json:"detail,omitempty"`
	Error   string `json:"error,omitempty"`
	Kind    string `json:"kind,omitempty"` // of the error
}

// up makes the project's services run as its spec says.
func (d *Daemon) up(ctx context.Context, request UpRequest, tell func(Progress)) error {
	p := &request.Project
	order, err := startOrder(p.Services)
	if err != nil {
		return err
	}
	if request.RemoveOrphans {
		if err := d.removeOrphans(ctx, p, tell); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Networks)) {
		if err := d.network.EnsureNetwork(p.Networks[name]); err != nil {
			return err
		}
	}
	units := map[host.ServiceName]*unit{}
	for _, spec := range order {
		u, err := d.prepare(ctx, p, spec, request.ForceRecreate, tell)
		if err != nil {
			return fmt.Errorf("service %s: %w", spec.Name, err)
		}
		units[spec.Name] = u
	}
	if err := d.writeHosts(); err != nil {
		return err
	}
	for _, spec := range order {
		if err := d.startAfter(ctx, units[spec.Name], spec.DependsOn, units, tell); err != nil {
			return fmt.Errorf("service %s: %w", spec.Name, err)
		}
	}
	if request.Wait {
		for _, spec := range order {
			if err := units[spec.Name].awaitReady(ctx, host.DependsHealthy); err != nil {
				return fmt.Errorf("service %s: %w", spec.Name, err)
			}
		}
	}
	return nil
}

// startOrder sorts services so that each comes behind what it depends on.
func startOrder(services []host.ServiceSpec) ([]host.ServiceSpec, error) {
	byName := map[host.ServiceName]host.ServiceSpec{}
	for _, s := range services {
		byName[s.Name] = s
	}
	var order []host.ServiceSpec
	state := map[host.ServiceName]int{} // 1: on the way, 2: done
	var visit func(host.ServiceName) error
	visit = func(name host.ServiceName) error {
		switch s, ok := byName[name]; {
		case !ok || state[name] == 2:
			return nil
		case state[name] == 1:
			return fmt.Errorf("order services: %s depends on itself: %w", name, host.ErrInvalid)
		default:
			state[name] = 1
			for _, dependency := range s.DependsOn {
				if err := visit(dependency.Service); err != nil {
					return err
				}
			}
			state[name] = 2
			order = append(order, s)
			return nil
		}
	}
	for _, s := range services {
		if err := visit(s.Name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// containerID names the only container of a service.
func containerID(project host.ProjectName, service host.ServiceName) host.ContainerID {
	return host.ContainerID(fmt.Sprintf("%s-%s-1", project, service))
}

// prepare makes or updates the record of a service. A container whose service
// has changed is removed, to be made anew.
func (d *Daemon) prepare(ctx context.Context, p *host.ProjectSpec, spec host.ServiceSpec, force bool, tell func(Progress)) (*unit, error) {
	if spec.Scale > 1 {
		return nil, fmt.Errorf("run %d containers: more than one is %w", spec.Scale, host.ErrUnsupported)
	}
	id := containerID(p.Name, spec.Name)
	networks, volumes := hostNames(p)
	hash, err := hashSpec(spec, networks, volumes)
	if err != nil {
		return nil, err
	}
	image, err := d.imageFor(ctx, p, &spec, tell)
	if err != nil {
		return nil, err
	}
	if u := d.unit(id); u != nil {
		same := false
		u.do(func() { same = u.record.Hash == hash && u.record.Image.ID == image.ID })
		if same && !force {
			return u, nil
		}
		tell(Progress{Subject: string(id), What: "recreating"})
		if err := d.removeUnit(ctx, u); err != nil {
			return nil, err
		}
	}
	r := &Record{Version: recordVersion, ID: id, Spec: spec, Hash: hash, Image: image, Networks: networks, Volumes: volumes, Created: time.Now()}
	if err := d.reserve(r); err != nil {
		return nil, err
	}
	if err := r.save(d.config.serviceDir(id)); err != nil {
		return nil, err
	}
	if image.ID != "" {
		if err := d.images.Use(image.ID, string(id)); err != nil {
			return nil, err
		}
	}
	u := d.addUnit(r)
	u.event(host.EventCreate, "", nil)
	tell(Progress{Subject: string(id), What: "created"})
	return u, nil
}

// hostNames maps the project's own names of networks and volumes to the host's.
func hostNames(p *host.ProjectSpec) (networks, volumes map[string]string) {
	networks, volumes = map[string]string{}, map[string]string{}
	for key, n := range p.Networks {
		networks[key] = n.Name
	}
	for key, v := range p.Volumes {
		volumes[key] = v.Name
	}
	return networks, volumes
}

// reserve gives the container its addresses.
func (d *Daemon) reserve(r *Record) error {
	if r.Spec.NetworkMode != host.NetworkBridge {
		return nil
	}
	var attachments []host.NetworkAttachment
	for _, a := range r.Spec.Networks {
		a.Network = r.Networks[a.Network]
		attachments = append(attachments, a)
	}
	var err error
	r.Attachments, err = d.network.Reserve(r.ID, attachments)
	return err
}

// startAfter waits for what the service depends on and starts it, unless it
// runs already.
func (d *Daemon) startAfter(ctx context.Context, u *unit, dependencies []host.Dependency, units map[host.ServiceName]*unit, tell func(Progress)) error {
	for _, dependency := range dependencies {
		other := units[dependency.Service]
		if other == nil {
			continue
		}
		if err := other.awaitReady(ctx, dependency.Condition); err != nil && dependency.Required {
			return fmt.Errorf("depends on %s: %w", dependency.Service, err)
		}
	}
	return u.try(func() error {
		u.record.WantRunning = true
		if err := u.save(); err != nil {
			return err
		}
		if u.init != 0 {
			tell(Progress{Subject: string(u.id), What: "running"})
			return nil
		}
		if err := u.start(ctx); err != nil {
			return err
		}
		tell(Progress{Subject: string(u.id), What: "started", Detail: strings.Join(u.record.Ports, " ")})
		return nil
	})
}

// awaitReady waits for a condition of depends_on.
func (u *unit) awaitReady(ctx context.Context, condition host.DependencyCondition) error {
	return u.await(ctx, func(state host.State, healthy health) (bool, error) {
		switch {
		case state == host.Failed:
			return false, fmt.Errorf("%s could not be started", u.id)
		case condition == host.DependsCompleted:
			if state == host.Exited {
				if code := u.exitCode(); code != 0 {
					return false, fmt.Errorf("%s ended with %d", u.id, code)
				}
				return true, nil
			}
			return false, nil
		case state == host.Exited:
			return false, fmt.Errorf("%s has ended", u.id)
		case condition == host.DependsHealthy && healthy == healthUnhealthy:
			return false, fmt.Errorf("%s is unhealthy", u.id)
		case condition == host.DependsHealthy:
			return state == host.Awake && (healthy == healthHealthy || healthy == healthNone), nil
		}
		return state == host.Awake, nil
	})
}

// exitCode is the last one; it may be read while the unit rests.
func (u *unit) exitCode() int {
	code := 0
	u.do(func() { code = u.record.ExitCode })
	return code
}

// removeUnit stops a service and takes its container away.
func (d *Daemon) removeUnit(ctx context.Context, u *unit) error {
	err := u.try(func() error {
		if err := u.stop(ctx); err != nil {
			return err
		}
		return u.remove(ctx)
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.units, u.id)
	d.mu.Unlock()
	u.stopCare()
	return nil
}

func (d *Daemon) removeOrphans(ctx context.Context, p *host.ProjectSpec, tell func(Progress)) error {
	for _, u := range d.ofProject(p.Name) {
		if slices.ContainsFunc(p.Services, func(s host.ServiceSpec) bool { return s.Name == u.service }) {
			continue
		}
		tell(Progress{Subject: string(u.id), What: "removing", Detail: "not in the file any more"})
		if err := d.removeUnit(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// DownRequest asks for the end of a project.
type DownRequest struct {
	Project host.ProjectName `json:"project"`
	Volumes bool             `json:"volumes,omitempty"` // also its named volumes
}

// down removes the project's containers, networks and, if asked, volumes.
func (d *Daemon) down(ctx context.Context, request DownRequest, tell func(Progress)) error {
	units := d.ofProject(request.Project)
	if request.Project == "" || len(units) == 0 {
		return fmt.Errorf("end project %q: nothing of it is here: %w", request.Project, host.ErrNotFound)
	}
	networks, volumes := map[string]bool{}, map[string]bool{}
	specs := make([]host.ServiceSpec, 0, len(units))
	byName := map[host.ServiceName]*unit{}
	for _, u := range units {
		u.do(func() {
			specs = append(specs, u.record.Spec)
			for _, name := range u.record.Networks {
				networks[name] = true
			}
			for _, name := range u.record.Volumes {
				volumes[name] = true
			}
		})
		byName[u.service] = u
	}
	order, err := startOrder(specs)
	if err != nil {
		return err
	}
	var errs []error
	for _, spec := range slices.Backward(order) {
		u := byName[spec.Name]
		tell(Progress{Subject: string(u.id), What: "stopping"})
		if err := d.removeUnit(ctx, u); err != nil {
			errs = append(errs, err)
			continue
		}
		tell(Progress{Subject: string(u.id), What: "removed"})
	}
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		errs = append(errs, d.network.RemoveNetwork(name))
	}
	if request.Volumes {
		for _, name := range slices.Sorted(maps.Keys(volumes)) {
			errs = append(errs, d.removeVolume(name))
		}
	}
	return errors.Join(errs...)
}
