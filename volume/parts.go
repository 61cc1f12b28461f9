package volume

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"torpor/block"
	"torpor/host"
)

// parts are what a server works with; tests of the server have logs and
// attachments in memory.
type parts struct {
	clean     func()                                     // what is left of exports of a server that was killed
	makeDisk  func(DiskSpec) error                       // of what is to be made
	openDisk  func(DiskSpec, bool) (block.Device, error) // true: read only
	createLog func([]logDisk, host.Layout, bool) error   // true: whatever the disks hold
	openLog   func([]logDisk, func(reason string)) (volumeLog, error)
	attach    func(block.Device, string) (attachment, error)
	resume    func(block.Device, suspension) (attachment, error)
	listen    func(block.Device, string, ExportSpec) (nbdServer, error)
	relisten  func(block.Device, string, ExportSpec, suspension) (nbdServer, error)
}

// logDisk is a disk for a log: its name is its path.
type logDisk struct {
	name   string
	device block.Device
}

// volumeLog is an open log.
type volumeLog interface {
	CreateVolume(name string, sizeBytes int64) error
	OpenVolume(name string) (block.Device, error)
	Snapshot(volume, snapshot string) error
	Clone(volume, snapshot, newVolume string) error
	Remove(volume, snapshot string) error
	Resize(volume string, sizeBytes int64) error
	AddDisk(logDisk) error
	ReplaceDisk(ctx context.Context, old string, d logDisk, progress func(done, total int64)) error
	Scrub(ctx context.Context, repair bool, progress func(done, total int64)) (Report, error)
	Rebuild(ctx context.Context, progress func(done, total int64)) error
	Check(ctx context.Context, data bool, progress func(done, total int64)) (Report, error)
	Describe() logDescription
	Close() error
}

// logDescription is what an open log says of itself.
type logDescription struct {
	health                   Health
	reason                   string
	capacityBytes, usedBytes int64
	written                  Written
	disks                    []DiskStatus
	out                      []string // names of those that are not up
	volumes                  []volumeDescription
}

type volumeDescription struct {
	name                 string
	sizeBytes, usedBytes int64
	origin               string // VOLUME@SNAPSHOT that it is a clone of
	created              time.Time
	snapshots            []SnapshotStatus
}

// attachment is a volume as a block device of this host.
type attachment interface {
	Path() string
	Resize() error // after the volume was
	Suspend() (suspension, error)
	Close() error
}

// nbdServer is a volume offered by NBD.
type nbdServer interface {
	URI() string
	Clients() int
	Suspend() (suspension, error)
	Close() error
}

// suspension is an export that waits to be resumed: what has to be known, and
// descriptors.
type suspension struct {
	State json.RawMessage `json:"state"`
	FDs   []int           `json:"fds"` // in the process that was executed

	files []*os.File // in the process that suspended it
}

// suspend describes an export in plain data.
func suspend(state any, files []*os.File) (suspension, error) {
	b, err := json.Marshal(state)
	return suspension{State: b, files: files}, err
}

// take returns the state and the descriptors, which are the caller's then.
func (s suspension) take(state any) ([]*os.File, error) {
	files := s.files
	for _, fd := range s.FDs {
		files = append(files, os.NewFile(uintptr(fd), "export"))
	}
	return files, json.Unmarshal(s.State, state)
}
