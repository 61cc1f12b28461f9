package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"torpor/checkpoint"
	"torpor/host"
	"torpor/wire"
)

// CheckpointStatus is what is shown of one ready checkpoint.
type CheckpointStatus struct {
	Project   host.ProjectName   `json:"project"`
	Service   host.ServiceName   `json:"service"`
	Created   time.Time          `json:"created,omitzero"`
	DiskBytes int64              `json:"disk_bytes"`
	ColdStart time.Duration      `json:"cold_start_ns,omitempty"`
	Instances []host.ContainerID `json:"instances,omitempty"` // of the service, whether they came from it or not
	Problem   string             `json:"problem,omitempty"`   // why it will not be restored on this machine
	Reset     []string           `json:"reset,omitempty"`     // peers whose connections a restore loses
	Shared    []string           `json:"shared,omitempty"`    // random state that instances have in common
}

// CheckpointRequest names a service's ready checkpoint.
type CheckpointRequest struct {
	Project host.ProjectName `json:"project"`
	Service host.ServiceName `json:"service"`
}

// checkpoints lists what is there, by project and service.
func (d *Daemon) checkpoints(context.Context) ([]CheckpointStatus, error) {
	dirs, err := filepath.Glob(filepath.Join(d.config.StateDir, "ready", "*", "*"))
	if err != nil {
		return nil, err
	}
	all := []CheckpointStatus{}
	for _, dir := range dirs {
		if ext := filepath.Ext(dir); ext == ".new" || ext == ".old" {
			continue
		}
		s := CheckpointStatus{Project: host.ProjectName(filepath.Base(filepath.Dir(dir))), Service: host.ServiceName(filepath.Base(dir))}
		s.read(dir, d.config.keyPath())
		for _, u := range d.instances(s.Project, s.Service) {
			s.Instances = append(s.Instances, u.id)
		}
		all = append(all, s)
	}
	return all, nil
}

// read fills in what the checkpoint says of itself.
func (s *CheckpointStatus) read(dir, keyPath string) {
	s.DiskBytes = diskBytes(dir)
	key, err := checkpoint.OpenKey(keyPath)
	if err == nil {
		var spec *checkpoint.Spec
		if spec, err = checkpoint.ReadReady(dir, key); spec != nil {
			s.Created, s.ColdStart, s.Reset, s.Shared = spec.Created, spec.Ready.ColdStart, spec.Ready.ResetPeers(), spec.Ready.Shared()
		}
	}
	if err != nil {
		s.Problem = err.Error()
	}
}

// diskBytes is what a directory takes on the disk.
func diskBytes(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}

// removeCheckpoint forgets one; the service's next start is cold.
func (d *Daemon) removeCheckpoint(r CheckpointRequest) error {
	if _, err := d.findCheckpoint(r); err != nil {
		return err
	}
	return d.config.dropReady(r.Project, r.Service)
}

// checkCheckpoint reads all of one.
func (d *Daemon) checkCheckpoint(r CheckpointRequest) error {
	dir, err := d.findCheckpoint(r)
	if err != nil {
		return err
	}
	key, err := checkpoint.OpenKey(d.config.keyPath())
	if err != nil {
		return err
	}
	return checkpoint.CheckReady(dir, key)
}

// findCheckpoint returns the directory of a checkpoint that is there.
func (d *Daemon) findCheckpoint(r CheckpointRequest) (string, error) {
	for _, name := range []string{string(r.Project), string(r.Service)} {
		if !filepath.IsLocal(name) || strings.ContainsRune(name, '/') {
			return "", fmt.Errorf("find checkpoint of %q: %w", name, host.ErrInvalid)
		}
	}
	dir := d.config.readyDir(r.Project, r.Service)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("find checkpoint of %s/%s: there is none: %w", r.Project, r.Service, host.ErrNotFound)
	} else if err != nil {
		return "", err
	}
	return dir, nil
}

// sweepReady removes what a killed keeper was writing.
func (c *Config) sweepReady() error {
	var errs []error
	for _, pattern := range []string{"*.new", "*.old"} {
		dirs, err := filepath.Glob(filepath.Join(c.StateDir, "ready", "*", pattern))
		errs = append(errs, err)
		for _, dir := range slices.Sorted(slices.Values(dirs)) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// onCheckpoint runs f with the checkpoint that the request names.
func onCheckpoint(f func(CheckpointRequest) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request CheckpointRequest
		err := json.NewDecoder(r.Body).Decode(&request)
		if err == nil {
			err = f(request)
		}
		wire.Answer(w, nil, err)
	}
}
