package volume

import (
	"encoding/json"
	"fmt"
	"time"

	"torpor/host"
)

// Status is what a server says about its log.
type Status struct {
	ID     LogID       `json:"id"`
	Layout host.Layout `json:"layout"`
	State  Health      `json:"state"`
	Reason string      `json:"reason,omitempty"` // why it is not ok, and what to do
	PID    int         `json:"pid,omitempty"`
	Binary string      `json:"binary,omitempty"` // SHA-256 of the server's executable

	CapacityBytes int64 `json:"capacity_bytes"` // for data
	UsedBytes     int64 `json:"used_bytes"`     // by data that is needed

	Disks   []DiskStatus   `json:"disks"`
	Volumes []VolumeStatus `json:"volumes"`
	Job     *JobStatus     `json:"job,omitempty"`
	Written Written        `json:"written"`
}

// Health is how a log is.
type Health string

// The healths of a log and of its volumes.
const (
	OK       Health = "ok"
	Degraded Health = "degraded" // some disks are out; all content is there
	Failed   Health = "failed"   // it can not be opened, or no more be written
)

// Written are totals since the log was created.
type Written struct {
	UserBytes int64 `json:"user_bytes"` // by users of volumes
	DiskBytes int64 `json:"disk_bytes"` // to disks, with parity, map and what was cleaned
}

// DiskStatus is one disk of a log.
type DiskStatus struct {
	ID        string `json:"id,omitempty"`
	Path      string `json:"path"`
	State     string `json:"state"` // up, out, filling, or missing
	Reason    string `json:"reason,omitempty"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
	UsedBytes int64  `json:"used_bytes,omitempty"`
	Errors    int64  `json:"errors,omitempty"` // reads, writes and wrong blocks since the server began
}

// VolumeStatus is one volume of a log.
type VolumeStatus struct {
	Name      string           `json:"name"`
	SizeBytes int64            `json:"size_bytes"`
	UsedBytes int64            `json:"used_bytes"`        // of the log, with its snapshots
	Device    string           `json:"device,omitempty"`  // where it is attached
	Holders   []Holder         `json:"holders,omitempty"` // who wants that
	Exports   []ExportStatus   `json:"exports,omitempty"`
	Snapshots []SnapshotStatus `json:"snapshots,omitempty"`
	FS        host.FileSystem  `json:"fs,omitempty"`
	Format    Format           `json:"format,omitempty"`
	Origin    string           `json:"origin,omitempty"`  // VOLUME@SNAPSHOT that it is a clone of
	Problem   string           `json:"problem,omitempty"` // why an export that should exist does not
	Created   time.Time        `json:"created,omitzero"`
}

// ExportStatus is an NBD server of a volume.
type ExportStatus struct {
	ExportSpec
	URI     string `json:"uri"`
	Clients int    `json:"clients"`
}

// SnapshotStatus is a snapshot of a volume.
type SnapshotStatus struct {
	Name      string    `json:"name"`
	UsedBytes int64     `json:"used_bytes"`
	Created   time.Time `json:"created,omitzero"`
}

// JobStatus is a long operation that is under way.
type JobStatus struct {
	What       string    `json:"what"` // "scrub", "check", "replace disk"
	Begun      time.Time `json:"begun"`
	DoneBytes  int64     `json:"done_bytes"`
	TotalBytes int64     `json:"total_bytes"`
}

// CreateRequest makes a new log with one volume.
type CreateRequest struct {
	Volume    string          `json:"volume"`
	SizeBytes int64           `json:"size_bytes"`
	FS        host.FileSystem `json:"fs,omitempty"`
	Force     bool            `json:"force,omitempty"` // whatever the disks hold
}

// VolumeRequest names a volume, and what else the request needs.
type VolumeRequest struct {
	Volume    string          `json:"volume"`
	Snapshot  string          `json:"snapshot,omitempty"`
	Clone     string          `json:"clone,omitempty"`
	SizeBytes int64           `json:"size_bytes,omitempty"`
	Holder    Holder          `json:"holder,omitempty"`
	Export    ExportSpec      `json:"export,omitzero"`
	FS        host.FileSystem `json:"fs,omitempty"`
	Force     bool            `json:"force,omitempty"`
}

// DiskRequest adds a disk, or puts one in another's place.
type DiskRequest struct {
	Old  string   `json:"old,omitempty"`
	Disk DiskSpec `json:"disk"`
}

// JobRequest says what a job does.
type JobRequest struct {
	Repair bool `json:"repair,omitempty"` // of a scrub
	Data   bool `json:"data,omitempty"`   // of a check: read everything, too
}

// Attachment is the answer to attach.
type Attachment struct {
	Device string          `json:"device"` // /dev/loopN
	FS     host.FileSystem `json:"fs,omitempty"`
	Format Format          `json:"format,omitempty"`
}

// Progress is a line of a job: how far it is, and at its end its result or its
// error.
type Progress struct {
	DoneBytes  int64           `json:"done_bytes"`
	TotalBytes int64           `json:"total_bytes"`
	Result     json.RawMessage `json:"result,omitempty"`
	Done       bool            `json:"done,omitempty"`
	Error      string          `json:"error,omitempty"`
	Kind       string          `json:"kind,omitempty"` // of the error
}

// Report is what a scrub or a check found.
type Report struct {
	// Damages are what is wrong, in words; Repaired are those of them that are
	// right again.
	Damages  []string `json:"damages,omitempty"`
	Found    int64    `json:"found"`    // damages, also those that are not listed
	Repaired int64    `json:"repaired"` // of them
	// ReadBytes is what was read and compared.
	ReadBytes int64 `json:"read_bytes"`
}

// OK says whether nothing is wrong now.
func (r Report) OK() bool { return r.Found == r.Repaired }

// Summary says in a few words what was found.
func (r Report) Summary() string {
	switch {
	case r.Found == 0:
		return "nothing is wrong"
	case r.OK():
		return fmt.Sprintf("%d damages, all repaired", r.Found)
	}
	return fmt.Sprintf("%d damages, %d repaired", r.Found, r.Repaired)
}

// UpgradeRequest names the binary that a server executes in its own place.
type UpgradeRequest struct {
	Executable string `json:"executable"`
}
