package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"torpor/host"
)

// LogID names a log on this machine: 16 hexadecimal digits.
type LogID string

// NewLogID returns a random one.
func NewLogID() LogID {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	return LogID(hex.EncodeToString(b))
}

var logIDPattern = regexp.MustCompile(`^[0-9a-f]{16}$`)

// State is what is kept about a log in STATE/logs/ID/log.json. It is written by
// the log's server; by the daemon only before there is one.
type State struct {
	Version int                     `json:"version"`
	ID      LogID                   `json:"id"`
	Phase   Phase                   `json:"phase"`
	Layout  host.Layout             `json:"layout"`
	Disks   []DiskSpec              `json:"disks"`
	Volumes map[string]*VolumeState `json:"volumes"`
	Created time.Time               `json:"created"`
}

// Phase is how far the making of a log went.
type Phase string

// The phases of a log. One that is still new when no server is left was never
// finished, and holds nothing.
const (
	New     Phase = "new"     // its disks are not formatted yet
	Ready   Phase = "ready"   // its disks say what it is
	Removed Phase = "removed" // nothing of it is needed any more
)

// DiskSpec is one disk of a log.
type DiskSpec struct {
	Path string   `json:"path"` // as the user gave it, absolute; it is the disk's name
	Kind DiskKind `json:"kind"`
	ID   string   `json:"id,omitempty"` // that the log has given it
	// Made is a file or directory that was made for the log, and goes with it.
	Made string `json:"made,omitempty"`
	// SizeBytes is the size of what was made; 0: what is there decides.
	SizeBytes int64 `json:"size_bytes,omitempty"`
}

// DiskKind says what a disk lies on.
type DiskKind string

// The kinds of disk.
const (
	BlockDevice DiskKind = "device"
	File        DiskKind = "file"
	Directory   DiskKind = "directory"
)

// VolumeState is what should be of a volume besides what its log says.
type VolumeState struct {
	Holders []Holder        `json:"holders,omitempty"` // who wants it attached
	Exports []ExportSpec    `json:"exports,omitempty"` // by NBD
	FS      host.FileSystem `json:"fs,omitempty"`      // "": its user's affair
	Format  Format          `json:"format,omitempty"`
}

// Holder is who wants a volume attached.
type Holder string

// The holders of attached volumes.
const (
	User     Holder = "user"     // torpor volume attach
	Services Holder = "services" // it is mounted for services
)

// Format says what Torpor may do to a volume's content.
//
//	"" -> Formatting -> Formatted
//	 +--> Foreign
type Format string

// The formats of a volume. A volume is formatted only if nobody else had it.
const (
	Unformatted Format = ""           // nobody has written to it
	Formatting  Format = "formatting" // a file system is being made; may be made again
	Formatted   Format = "formatted"
	Foreign     Format = "foreign" // others have written to it, or may have
)

// ExportSpec is an NBD server of a volume.
type ExportSpec struct {
	Listen   string `json:"listen"` // unix:PATH or tcp:ADDRESS:PORT
	ReadOnly bool   `json:"read_only,omitempty"`
	CertFile string `json:"cert_file,omitempty"` // with KeyFile: TLS is required
	KeyFile  string `json:"key_file,omitempty"`
	CAFile   string `json:"ca_file,omitempty"` // clients need a certificate of this authority
}

const stateVersion = 1

// LogDir is the directory of a log.
func LogDir(stateDir string, id LogID) string {
	return filepath.Join(stateDir, "logs", string(id))
}

// SocketPath is where the server of a log answers.
func SocketPath(runDir string, id LogID) string {
	return filepath.Join(runDir, "volumes", string(id)+".sock")
}

// MountPoint is where the daemon mounts a volume for services.
func MountPoint(stateDir string, id LogID, volume string) string {
	return filepath.Join(LogDir(stateDir, id), "mounts", volume)
}

// StateDraft is what a state file is called until it is durable, in the
// directory of its log.
const StateDraft = "log.json.new"

func statePath(stateDir string, id LogID) string {
	return filepath.Join(LogDir(stateDir, id), "log.json")
}

// LoadState reads the state of a log. Errors: host.ErrNotFound,
// host.ErrCorrupt, host.ErrUnsupported.
func LoadState(stateDir string, id LogID) (*State, error) {
	if !logIDPattern.MatchString(string(id)) {
		return nil, fmt.Errorf("read state of log %q: not the name of one: %w", id, host.ErrInvalid)
	}
	path := statePath(stateDir, id)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read state of log %s: %w", id, host.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read state of log %s: %w", id, err)
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read state of log %s: %w: %w", path, err, host.ErrCorrupt)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("read state of log %s: version %d, this torpor uses %d: %w", path, s.Version, stateVersion, host.ErrUnsupported)
	}
	if s.ID != id {
		return nil, fmt.Errorf("read state of log %s: it is of log %s: %w", path, s.ID, host.ErrCorrupt)
	}
	if s.Volumes == nil {
		s.Volumes = map[string]*VolumeState{}
	}
	return s, nil
}

// LoadStates reads the states of all logs, and returns the errors of those that
// can not be read.
func LoadStates(stateDir string) ([]*State, []error) {
	paths, err := filepath.Glob(statePath(stateDir, "*"))
	if err != nil {
		return nil, []error{err}
	}
	var states []*State
	var errs []error
	for _, path := range paths {
		s, err := LoadState(stateDir, LogID(filepath.Base(filepath.Dir(path))))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		states = append(states, s)
	}
	return states, errs
}

// Save replaces the file as a whole, durably.
func (s *State) Save(stateDir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write state of log %s: %w", s.ID, err)
		}
	}()
	s.Version = stateVersion
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	path := statePath(stateDir, s.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	draft := filepath.Join(filepath.Dir(path), StateDraft)
	f, err := os.OpenFile(draft, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Held says whether a process has a log open.
func Held(stateDir string, id LogID) (bool, error) {
	lock, err := lockLog(stateDir, id)
	if errors.Is(err, host.ErrExists) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, lock.Close()
}

// Abandon waits until no process has a log open, and returns its state.
func Abandon(ctx context.Context, stateDir string, id LogID) (*State, error) {
	for {
		lock, err := lockLog(stateDir, id)
		if err == nil {
			defer lock.Close()
			return LoadState(stateDir, id)
		}
		if !errors.Is(err, host.ErrExists) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
