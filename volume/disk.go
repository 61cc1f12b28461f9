package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"torpor/block"
	"torpor/host"
)

// addDisk gives the log another disk. It is in the state before it is in the
// log, so that a log that has it always finds it.
func (s *Server) addDisk(r DiskRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	log, err := s.openedLocked()
	if err != nil {
		return err
	}
	device, err := s.joinLocked(r.Disk)
	if err != nil {
		return err
	}
	if err := log.AddDisk(logDisk{r.Disk.Path, device}); err != nil {
		return errors.Join(fmt.Errorf("add disk %s: %w", r.Disk.Path, err), s.leaveLocked(r.Disk.Path))
	}
	return nil
}

// joinLocked opens a disk that the log has not, and notes it.
func (s *Server) joinLocked(spec DiskSpec) (block.Device, error) {
	if !filepath.IsAbs(spec.Path) {
		return nil, fmt.Errorf("open disk %q: not an absolute path: %w", spec.Path, host.ErrInvalid)
	}
	if slices.ContainsFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == spec.Path }) {
		return nil, fmt.Errorf("open disk %s: it is a disk of this log already: %w", spec.Path, host.ErrExists)
	}
	device, err := s.parts.openDisk(spec, false)
	if err != nil {
		return nil, err
	}
	s.state.Disks, s.disks, s.missing = append(s.state.Disks, spec), append(s.disks, device), append(s.missing, nil)
	if err := s.save(); err != nil {
		return nil, errors.Join(err, s.leaveLocked(spec.Path))
	}
	return device, nil
}

// leaveLocked forgets a disk that the log does not use.
func (s *Server) leaveLocked(path string) error {
	i := slices.IndexFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == path })
	if i < 0 {
		return nil
	}
	var err error
	if s.disks[i] != nil {
		err = s.disks[i].Close()
	}
	s.state.Disks, s.disks, s.missing = slices.Delete(s.state.Disks, i, i+1), slices.Delete(s.disks, i, i+1), slices.Delete(s.missing, i, i+1)
	return errors.Join(err, s.save())
}

// replaceDisk puts a disk in the place of another and fills it. It goes on when
// its client goes.
func (s *Server) replaceDisk(r *http.Request, log volumeLog) (work, error) {
	var request DiskRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid)
	}
	old := request.Old
	s.mu.Lock()
	known := slices.ContainsFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == old })
	s.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("replace disk %s: the log has none of that path; torpor volume inspect lists them: %w", old, host.ErrNotFound)
	}
	return func(ctx context.Context, progress func(done, total int64)) (any, error) {
		s.mu.Lock()
		device, err := s.joinLocked(request.Disk)
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		err = log.ReplaceDisk(ctx, old, logDisk{request.Disk.Path, device}, progress)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil { // the new one may hold shards already: it stays
			return nil, fmt.Errorf("replace disk %s: %w", old, err)
		}
		s.tell(host.EventRebuilt, "", "disk "+request.Disk.Path+" holds what "+old+" did")
		return nil, s.leaveLocked(old)
	}, nil
}

// scrub reads everything, compares it, and repairs if asked to.
func (s *Server) scrub(r *http.Request, log volumeLog) (work, error) {
	var request JobRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid)
	}
	return func(ctx context.Context, progress func(done, total int64)) (any, error) {
		begun := time.Now()
		report, err := log.Scrub(ctx, request.Repair, progress)
		if err != nil {
			return nil, fmt.Errorf("scrub: %w", err)
		}
		s.event(host.Event{Type: host.EventScrub, Reason: report.Summary(),
			Attrs: map[string]string{"duration_ms": fmt.Sprint(time.Since(begun).Milliseconds())}})
		return report, nil
	}, nil
}

// check compares the log's map, segments and layers with each other.
func (*Server) check(_ *http.Request, log volumeLog) (work, error) {
	return func(ctx context.Context, progress func(done, total int64)) (any, error) {
		report, err := log.Check(ctx, progress)
		if err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
		return report, nil
	}, nil
}
