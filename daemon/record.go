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

// Record is what is kept on disk about one container.
type Record struct {
	Version     int                  `json:"version"`
	ID          host.ContainerID     `json:"id"`
	Spec        host.ServiceSpec     `json:"spec"`
	Hash        string               `json:"hash"` // of the spec and of its networks and volumes: tells a changed service
	Image       imageDefaults        `json:"image"`
	Networks    map[string]string    `json:"networks"` // key in the project -> name on the host
	Volumes     map[string]string    `json:"volumes"`  // likewise
	WantRunning bool                 `json:"want_running"`
	Created     time.Time            `json:"created"`
	Attachments []network.Attachment `json:"attachments,omitempty"`
	Ports       []string             `json:"ports,omitempty"` // as people read them
	ExitCode    int                  `json:"exit_code"`
	Restarts    int                  `json:"restarts"`
}

// imageDefaults is what an image says about how it is run.
type imageDefaults struct {
	ID          image.ID          `json:"id,omitempty"`
	Name        string            `json:"name,omitempty"`
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

// hashSpec tells two versions of a service apart.
func hashSpec(spec host.ServiceSpec, networks, volumes map[string]string) (string, error) {
	b, err := json.Marshal(struct {
		Spec              host.ServiceSpec
		Networks, Volumes map[string]string
	}{spec, networks, volumes})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
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
	h := r.Spec.Healthcheck
	if h == nil {
		h = r.Image.Healthcheck
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
