package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"torpor/host"
	"torpor/keeper"
	"torpor/kernel/proc"
)

// ServiceStatus is what ps and stats show of one container.
type ServiceStatus struct {
	ID      host.ContainerID `json:"id"`
	Name    string           `json:"name"` // its container_name, else its ID
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
	CPU             time.Duration `json:"cpu_ns"`       // used by the processes that live
	ReturnedBytes   int64         `json:"returned_bytes,omitempty"`
	ConnectionsHeld int           `json:"connections_held,omitempty"`
	// ConnectionsSuspended are those of ConnectionsHeld that have no socket;
	// ConnectionsParkedWhy says why the others could not be suspended.
	ConnectionsSuspended int           `json:"connections_suspended,omitempty"`
	ConnectionsParkedWhy string        `json:"connections_parked_why,omitempty"`
	Connections          []string      `json:"connections,omitempty"` // what is known of them, in words, if asked for
	Cycles               int           `json:"cycles"`
	LastWake             time.Duration `json:"last_wake_ns,omitempty"`
	LastSleep            time.Duration `json:"last_sleep_ns,omitempty"`
	LastWakeReason       string        `json:"last_wake_reason,omitempty"`
	ExitCode             int           `json:"exit_code"`
	Restarts             int           `json:"restarts"`
	Spare                bool          `json:"spare,omitempty"`          // no instance: a container made ahead
	NeverSleeps          string        `json:"never_sleeps,omitempty"`   // the reason
	ColdStart            time.Duration `json:"cold_start_ns,omitempty"`  // of a service that starts from its checkpoint: how long a cold start took
	ReadyStart           time.Duration `json:"ready_start_ns,omitempty"` // and the last one from the checkpoint
	Shared               []string      `json:"shared,omitempty"`         // random state that it has in common with other instances
	NoAttach             bool          `json:"no_attach,omitempty"`      // up does not show its logs
	Wanted               bool          `json:"wanted"`                   // runs, or is to be started again
}

// status collects what is known of the containers of a project; all for "".
// It waits for no unit's work.
func (d *Daemon) status(ctx context.Context, project host.ProjectName) ([]ServiceStatus, error) {
	kept, err := d.keeperStatus(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[host.ContainerID]keeper.Status{}
	for _, s := range kept {
		byID[s.ID] = s
	}
	all := []ServiceStatus{}
	for _, u := range d.ofProject(project) {
		all = append(all, u.status(byID[u.id]))
	}
	return all, nil
}

// status joins what the unit and the keeper know.
func (u *unit) status(k keeper.Status) ServiceStatus {
	u.mu.Lock()
	state, reason, healthy, since, r, init := u.state, u.reason, u.healthy, u.since, u.view, u.running
	u.mu.Unlock()
	s := ServiceStatus{ID: u.id, Name: r.Spec.ContainerName, Project: u.project, Service: u.service, Image: r.Image.Name,
		State: state, Since: since, Reason: reason, Health: string(healthy), Ports: r.Ports, ExitCode: r.ExitCode,
		Restarts: r.Restarts, Spare: r.Spare, NeverSleeps: noSleepReason(&r.Spec), NoAttach: r.Spec.NoAttach, ColdStart: r.ColdStart, ReadyStart: r.ReadyStart, Shared: r.Shared, Wanted: r.WantRunning}
	if s.Name == "" {
		s.Name = string(u.id)
	}
	if r.Spec.Torpor.RootFS != "" {
		s.Image = "rootfs:" + r.Spec.Torpor.RootFS
	}
	if len(r.Attachments) > 0 {
		s.Address = r.Attachments[0].Address.String()
	}
	if k.ID == "" || init == 0 {
		return s
	}
	s.MainPID, s.Cycles, s.LastWake, s.LastSleep, s.LastWakeReason = k.MainPID, k.Cycles, k.LastWake, k.LastSleep, k.LastWakeReason
	s.MemoryBytes, s.CPU = use(init)
	if state == host.Awake { // it is the keeper that knows more
		s.State, s.Since, s.Reason = k.State, k.Since, k.Reason
		s.ReturnedBytes, s.ConnectionsHeld = k.ReturnedBytes, k.ConnectionsHeld
		s.ConnectionsSuspended, s.ConnectionsParkedWhy = k.ConnectionsSuspended, k.ConnectionsParkedWhy
	}
	return s
}

// connectionsTime bounds the wait for a keeper that is busy with one container:
// what is known of its connections is then left out.
const connectionsTime = 2 * time.Second

// addConnections asks the keeper what it knows of the connections.
func (d *Daemon) addConnections(ctx context.Context, all []ServiceStatus) {
	ctx, cancel := context.WithTimeout(ctx, connectionsTime)
	defer cancel()
	client, err := d.keeper.get(ctx)
	if err != nil {
		return
	}
	var asked sync.WaitGroup
	for i := range all {
		if all[i].MainPID == 0 && all[i].State != host.Asleep {
			continue
		}
		asked.Go(func() {
			if report, err := client.Sockets(ctx, all[i].ID, true); err == nil {
				all[i].Connections = report.Reasons
			}
		})
	}
	asked.Wait()
}

// ticksPerSecond is USER_HZ.
const ticksPerSecond = 100

// use sums the proportional share of resident memory of a process tree, and
// the time it has used.
func use(init int) (bytes int64, cpu time.Duration) {
	pids, err := proc.Tree(init)
	if err != nil {
		return 0, 0
	}
	for _, pid := range pids {
		if stat, err := proc.ReadStat(pid); err == nil {
			cpu += time.Duration(stat.UserTicks+stat.SystemTicks) * (time.Second / ticksPerSecond)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			var kb int64
			if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kb); n == 1 {
				bytes += kb << 10
			}
		}
	}
	return bytes, cpu
}
