package volume

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"torpor/host"
	"torpor/wire"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { wire.Answer(w, s.Status(), nil) })
	mux.Handle("GET /v1/events", s.events)
	mux.HandleFunc("POST /v1/create", onRequest(func(r CreateRequest) (any, error) { return nil, s.create(r) }))
	mux.HandleFunc("POST /v1/retry", onRequest(func(struct{}) (any, error) { return nil, s.retry() }))
	mux.HandleFunc("POST /v1/attach", onRequest(func(r VolumeRequest) (any, error) { return s.attach(r) }))
	mux.HandleFunc("POST /v1/export", onRequest(func(r VolumeRequest) (any, error) { return s.export(r) }))
	for verb, f := range map[string]func(VolumeRequest) error{
		"detach": s.detach, "unexport": s.unexport, "snapshot": s.snapshot, "clone": s.clone, "resize": s.resize, "remove": s.remove,
		"format/begin": s.beginFormat, "format/end": s.endFormat,
	} {
		mux.HandleFunc("POST /v1/"+verb, onRequest(func(r VolumeRequest) (any, error) { return nil, f(r) }))
	}
	mux.HandleFunc("POST /v1/disks/add", onRequest(func(r DiskRequest) (any, error) { return nil, s.addDisk(r) }))
	mux.HandleFunc("POST /v1/disks/replace", s.longJob("replace disk", true, s.replaceDisk))
	mux.HandleFunc("POST /v1/scrub", s.longJob("scrub", false, s.scrub))
	mux.HandleFunc("POST /v1/check", s.longJob("check", false, s.check))
	mux.HandleFunc("POST /v1/upgrade", onRequest(func(r UpgradeRequest) (any, error) { return nil, s.Upgrade(r.Executable) }))
	mux.HandleFunc("POST /v1/stop", onRequest(func(struct{}) (any, error) { s.end(); return nil, nil }))
	return mux
}

// onRequest decodes a request and answers it.
func onRequest[R any](f func(R) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request R
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			wire.Answer(w, nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid))
			return
		}
		result, err := f(request)
		wire.Answer(w, result, err)
	}
}

// Status says how the log and its volumes are.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	binary, _ := s.binary() // of this very process: there is one
	if s.log == nil {
		status := ClosedStatus(s.state, s.failure)
		status.PID, status.Binary = os.Getpid(), binary
		return status
	}
	status := Status{ID: s.state.ID, Layout: s.state.Layout, PID: os.Getpid(), Binary: binary, Job: s.jobStatus(), Disks: []DiskStatus{}, Volumes: []VolumeStatus{}}
	d := s.log.Describe()
	status.State, status.Reason, status.CapacityBytes, status.UsedBytes, status.Written = d.health, d.reason, d.capacityBytes, d.usedBytes, d.written
	status.Disks = append(status.Disks, d.disks...)
	for i, disk := range status.Disks {
		// A log calls a disk that was missing when it was opened by its ID.
		for _, spec := range s.state.Disks {
			if err := s.missing[spec.Path]; err != nil && spec.ID == disk.ID {
				status.Disks[i].Path, status.Disks[i].Reason = spec.Path, err.Error()
			}
		}
	}
	if status.State == Degraded && status.Reason == "" {
		status.Reason = degradedReason(status.Disks)
	}
	for _, v := range d.volumes {
		status.Volumes = append(status.Volumes, s.volumeStatusLocked(v))
	}
	slices.SortFunc(status.Volumes, func(a, b VolumeStatus) int { return strings.Compare(a.Name, b.Name) })
	return status
}

// ClosedStatus says what the state knows of a log that is not open, and why it
// is not; nil: it was never.
func ClosedStatus(s *State, why error) Status {
	status := Status{ID: s.ID, Layout: s.Layout, State: OK, Disks: []DiskStatus{}, Volumes: []VolumeStatus{}}
	if why != nil {
		status.State, status.Reason = Failed, why.Error()
	}
	for _, d := range s.Disks {
		status.Disks = append(status.Disks, DiskStatus{Path: d.Path, State: "closed"})
	}
	for name, v := range s.Volumes {
		status.Volumes = append(status.Volumes, VolumeStatus{Name: name, FS: v.FS, Format: v.Format, Holders: v.Holders})
	}
	slices.SortFunc(status.Volumes, func(a, b VolumeStatus) int { return strings.Compare(a.Name, b.Name) })
	return status
}

// degradedReason says what can be done about missing redundancy.
func degradedReason(disks []DiskStatus) string {
	for _, d := range disks {
		switch d.State {
		case "out", "missing":
			return fmt.Sprintf("disk %s is %s; torpor volume disk replace puts another in its place", d.Path, d.State)
		case "filling":
			return fmt.Sprintf("disk %s is being filled", d.Path)
		}
	}
	return "some shards are missing; torpor volume scrub --repair makes them again"
}

func (s *Server) volumeStatusLocked(d volumeDescription) VolumeStatus {
	v := VolumeStatus{Name: d.name, SizeBytes: d.sizeBytes, UsedBytes: d.usedBytes, Created: d.created, Snapshots: d.snapshots, Origin: d.origin}
	if want := s.state.Volumes[d.name]; want != nil {
		v.Holders, v.FS, v.Format = want.Holders, want.FS, want.Format
	}
	open := s.volumes[d.name]
	if open == nil {
		return v
	}
	if open.attached != nil {
		v.Device = open.attached.Path()
	}
	for i, server := range open.servers {
		v.Exports = append(v.Exports, exportStatus(open.specs[i], server))
	}
	if open.problem != nil {
		v.Problem = open.problem.Error()
	}
	return v
}
