package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"torpor/container/network"
	"torpor/host"
	"torpor/image"
)

// Record is what is kept on disk about one container. Its maps and slices are
// replaced, not changed, once it is saved.
type Record struct {
	Version  int                         `json:"version"`
	ID       host.ContainerID            `json:"id"`
	Number   int                         `json:"number"`          // of the instance, from 1
	Spare    bool                        `json:"spare,omitempty"` // made ahead, not an instance yet
	Spec     host.ServiceSpec            `json:"spec"`            // without the content of secrets
	Hash     string                      `json:"hash"`            // of the spec and of its networks and volumes: tells a changed service
	Image    imageDefaults               `json:"image"`
	Networks map[string]host.NetworkSpec `json:"networks,omitempty"` // by the key in the project; only those it is on
	Volumes  map[string]host.VolumeSpec  `json:"volumes,omitempty"`  // likewise
	Created  time.Time                   `json:"created"`

	Attachments []network.Attachment `json:"attachments,omitempty"`
	Ports       []string             `json:"ports,omitempty"` // published, as people read them

	WantRunning bool          `json:"want_running"`
	Starting    bool          `json:"starting,omitempty"` // a start was begun and not ended
	Started     time.Time     `json:"started,omitzero"`   // last; zero: never
	ExitCode    int           `json:"exit_code"`
	Restarts    int           `json:"restarts"`                 // in a row
	ReadyStart  time.Duration `json:"ready_start_ns,omitempty"` // how long the last start from a ready checkpoint took
	ColdStart   time.Duration `json:"cold_start_ns,omitempty"`  // and the last cold one, until it was ready
	Shared      []string      `json:"shared,omitempty"`         // random state that it shares with other instances
	Outdone     int           `json:"outdone,omitempty"`        // checkpoints in a row that changed files made useless
	ColdChoices int           `json:"cold_choices,omitempty"`   // cold starts since, because they are faster
	Health      health        `json:"health,omitempty"`
}

// imageDefaults is what an image says about how it is run.
type imageDefaults struct {
	ID          image.ID          `json:"id,omitempty"`
	Name        string            `json:"name,omitempty"`
	Layers      []image.LayerID   `json:"layers,omitempty"`
	Entrypoint  []string          `json:"entrypoint,omitempty"`
	Command     []string          `json:"command,omitempty"`
	Env         []string          `json:"env,omitempty"`
	WorkingDir  string            `json:"working_dir,omitempty"`
	User        string            `json:"user,omitempty"`
	Volumes     []string          `json:"volumes,omitempty"`
	StopSignal  string            `json:"stop_signal,omitempty"`
	Healthcheck *host.Healthcheck `json:"healthcheck,omitempty"`
}

const recordVersion = 1

// newRecord describes an instance of a service that is to be made.
func newRecord(p *host.ProjectSpec, spec host.ServiceSpec, number int, img imageDefaults) (*Record, error) {
	r := &Record{Version: recordVersion, ID: containerID(p.Name, spec.Name, number), Number: number, Spec: spec, Image: img, Created: time.Now(),
		Networks: map[string]host.NetworkSpec{}, Volumes: map[string]host.VolumeSpec{}}
	for _, a := range spec.Networks {
		n, ok := p.Networks[a.Network]
		if !ok {
			return nil, fmt.Errorf("join network %s: the project has none of that name: %w", a.Network, host.ErrInvalid)
		}
		r.Networks[a.Network] = n
	}
	for _, m := range spec.Mounts {
		if m.Kind != host.MountVolume || m.Source == "" {
			continue
		}
		v, ok := p.Volumes[m.Source]
		if !ok {
			return nil, fmt.Errorf("mount volume %s: the project has none of that name: %w", m.Source, host.ErrInvalid)
		}
		r.Volumes[m.Source] = v
	}
	hashed := spec // what can change without the container being made anew
	hashed.DependsOn, hashed.Profiles, hashed.NoAttach, hashed.Scale = nil, nil, false, 1
	b, err := json.Marshal(struct {
		Spec     host.ServiceSpec
		Networks map[string]host.NetworkSpec
		Volumes  map[string]host.VolumeSpec
	}{hashed, r.Networks, r.Volumes})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	r.Hash = hex.EncodeToString(sum[:16])
	return r, nil
}

func recordPath(dir string) string { return filepath.Join(dir, "spec.json") }

func readRecord(path string) (*Record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read service: %w", err)
	}
	r := new(Record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read service %s: %w: %w", path, err, host.ErrCorrupt)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("read service %s: version %d, this torpor uses %d: %w", path, r.Version, recordVersion, host.ErrUnsupported)
	}
	r.Number = max(r.Number, 1) // records of services that had one container have none
	if want := filepath.Base(filepath.Dir(path)); string(r.ID) != want {
		return nil, fmt.Errorf("read service %s: it is of container %q: %w", path, r.ID, host.ErrCorrupt)
	}
	return r, nil
}

// save replaces the file as a whole, durably.
func (r *Record) save(dir string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write service %s: %w", r.ID, err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("write service %s: %w", r.ID, err)
	}
	temporary := recordPath(dir) + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write service %s: %w", r.ID, err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write service %s: %w", r.ID, err)
	}
	if err := os.Rename(temporary, recordPath(dir)); err != nil {
		return fmt.Errorf("write service %s: %w", r.ID, err)
	}
	return nil
}

// stopSignal, healthcheck and grace are the service's, else the image's, else
// the usual ones.

func (r *Record) stopSignal() string {
	for _, s := range []string{r.Spec.StopSignal, r.Image.StopSignal} {
		if s != "" {
			return s
		}
	}
	return "SIGTERM"
}

func (r *Record) healthcheck() *host.Healthcheck {
	h, own := r.Spec.Healthcheck, r.Image.Healthcheck
	if h == nil {
		h = own
	} else if len(h.Test) == 0 && own != nil { // the image's test, with these times
		merged := *h
		merged.Test = own.Test
		h = &merged
	}
	if h == nil || h.Disable || len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	return h
}

const defaultGrace = 10 * time.Second

func (r *Record) grace() time.Duration {
	if r.Spec.StopGrace > 0 {
		return r.Spec.StopGrace
	}
	return defaultGrace
}

// gated reports whether the container's gate is closed while it starts: nobody
// is let in before its checkpoint is made, or before it was told that it was
// restored.
func (r *Record) gated(args []string) bool {
	return r.startsReady() && (len(args) > 0 || r.Spec.Torpor.AfterRestore != nil)
}

// startsReady reports whether the service wants to start from a checkpoint.
func (r *Record) startsReady() bool {
	return r.Spec.Torpor.Checkpoint == host.CheckpointReady && r.Outdone < outdoneMost && r.Spec.NetworkMode != host.NetworkHost && r.Spec.PIDMode != "host"
}

// coldChoicesMost is how many cold starts are chosen before a restore is
// measured again.
const coldChoicesMost = 10

// prefersCold reports whether a cold start, which takes as long as this, is
// faster than what the last restore took.
func (r *Record) prefersCold(cold time.Duration) bool {
	return r.ReadyStart > 0 && cold > 0 && cold < r.ReadyStart && r.ColdChoices < coldChoicesMost
}

// args is the application's command line.
func (r *Record) args() []string {
	entrypoint, command := r.Spec.Entrypoint, r.Spec.Command
	if entrypoint == nil {
		entrypoint = r.Image.Entrypoint
		if command == nil {
			command = r.Image.Command
		}
	}
	return append(append([]string{}, entrypoint...), command...)
}

// names are what peers call this container, beside its aliases. A spare has only
// its own: nobody is to find it by the service's.
func (r *Record) names() []string {
	if r.Spare {
		return []string{string(r.ID)}
	}
	names := []string{string(r.Spec.Name)}
	if r.Spec.ContainerName != "" {
		names = append(names, r.Spec.ContainerName)
	}
	return append(names, string(r.ID))
}

// hostname is what the file says, else the service's name, with its number
// behind it for all instances but the first.
func (r *Record) hostname() string {
	switch {
	case r.Spec.Hostname != "":
		return r.Spec.Hostname
	case r.Number > 1:
		return fmt.Sprintf("%s-%d", r.Spec.Name, r.Number)
	}
	return string(r.Spec.Name)
}

// another describes one more instance of the same service, as it was when this
// one was made.
func (r *Record) another(number int) *Record {
	return &Record{Version: recordVersion, ID: containerID(r.Spec.Project, r.Spec.Name, number), Number: number, Spec: r.Spec, Hash: r.Hash,
		Image: r.Image, Networks: r.Networks, Volumes: r.Volumes, Created: time.Now()}
}

// group is what a container's published ports are shared in: all instances of
// its service.
func (r *Record) group() string { return string(r.Spec.Project) + "/" + string(r.Spec.Name) }
