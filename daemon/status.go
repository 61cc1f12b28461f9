package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"torpor/host"
	"torpor/keeper"
	"torpor/kernel/proc"
)

// ServiceStatus is what ps and stats show of one container.
type ServiceStatus struct {
	ID      host.ContainerID `json:"id"`
	Project host.ProjectName `json:"project"`
	Service host.ServiceName `json:"service"`
	Image   string           `json:"image,omitempty"`
	State   host.State       `json:"state"`
	Since   time.Time        `json:"since"`
	Reason  string           `json:"reason,omitempty"` // why it is awake, why it failed
	Health  string           `json:"health,omitempty"`
	Ports   []string         `json:"ports,omitempty"`
	Address string           `json:"address,omitempty"` // on its first network
	MainPID int              `json:"main_pid,omitempty"`

	MemoryBytes     int64         `json:"memory_bytes"` // resident now, all processes (PSS)
	ReturnedBytes   int64         `json:"returned_bytes,omitempty"`
	ConnectionsHeld int           `json:"connections_held,omitempty"`
	Cycles          int           `json:"cycles"`
	LastWake        time.Duration `json:"last_wake_ns,omitempty"`
	LastSleep       time.Duration `json:"last_sleep_ns,omitempty"`
	LastWakeReason  string        `json:"last_wake_reason,omitempty"`
	ExitCode        int           `json:"exit_code"`
	Restarts        int           `json:"restarts"`
	NeverSleeps     string        `json:"never_sleeps,omitempty"` // the reason
}

// keeperStatus asks the keeper about this container.
func (u *unit) keeperStatus(ctx context.Context) (keeper.Status, error) {
	client, err := u.daemon.keeper.get(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	all, err := client.Status(ctx)
	if err != nil {
		return keeper.Status{}, err
	}
	for _, s := range all {
		if s.ID == u.id {
			return s, nil
		}
	}
	return keeper.Status{}, fmt.Errorf("ask keeper about %s: %w", u.id, host.ErrNotFound)
}

// status collects what is known of the containers of a project; all for "".
func (d *Daemon) status(ctx context.Context, project host.ProjectName) ([]ServiceStatus, error) {
	client, err := d.keeper.get(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[host.ContainerID]keeper.Status{}
	for _, s := range kept {
		byID[s.ID] = s
	}
	all := []ServiceStatus{}
	for _, u := range d.ofProject(project) {
		s := ServiceStatus{ID: u.id, Project: u.project, Service: u.service}
		if !u.do(func() { s = u.status(byID[u.id]) }) {
			continue
		}
		all = append(all, s)
	}
	return all, nil
}

// status joins what the unit and the keeper know.
func (u *unit) status(k keeper.Status) ServiceStatus {
	state, reason, healthy := u.snapshot()
	r := u.record
	s := ServiceStatus{ID: u.id, Project: u.project, Service: u.service, Image: r.Image.Name, State: state, Since: u.since, Reason: reason,
		Health: string(healthy), Ports: r.Ports, ExitCode: r.ExitCode, Restarts: r.Restarts, NeverSleeps: noSleepReason(&r.Spec)}
	if r.Spec.Torpor.RootFS != "" {
		s.Image = "rootfs:" + r.Spec.Torpor.RootFS
	}
	if len(r.Attachments) > 0 {
		s.Address = r.Attachments[0].Address.String()
	}
	if state != host.Awake || k.ID == "" {
		return s
	}
	s.State, s.Since, s.Reason, s.MainPID = k.State, k.Since, k.Reason, k.MainPID
	s.ReturnedBytes, s.ConnectionsHeld, s.Cycles = k.ReturnedBytes, k.ConnectionsHeld, k.Cycles
	s.LastWake, s.LastSleep, s.LastWakeReason = k.LastWake, k.LastSleep, k.LastWakeReason
	s.MemoryBytes = memoryOf(u.init)
	return s
}

// memoryOf sums the proportional share of resident memory of a process tree.
func memoryOf(init int) int64 {
	pids, err := proc.Tree(init)
	if err != nil {
		return 0
	}
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			var kb int64
			if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kb); n == 1 {
				sum += kb << 10
			}
		}
	}
	return sum
}
