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
		return errors.Join(fmt.Errorf("add disk %s: %w", r.Disk.Path, err), device.Close(), s.leaveLocked(r.Disk.Path))
	}
	s.noteDisksLocked()
	return s.save()
}

// joinLocked opens a disk that the log has not, and notes it.
func (s *Server) joinLocked(spec DiskSpec) (block.Device, error) {
	if !filepath.IsAbs(spec.Path) {
		return nil, fmt.Errorf("open disk %q: not an absolute path: %w", spec.Path, host.ErrInvalid)
	}
	if slices.ContainsFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == spec.Path }) {
		return nil, fmt.Errorf("open disk %s: it is a disk of this log already: %w", spec.Path, host.ErrExists)
	}
	if spec.Made != "" {
		if err := makeDisk(spec); err != nil {
			return nil, err
		}
	}
	device, err := openDisk(spec, false)
	if err != nil {
		return nil, err
	}
	s.state.Disks = append(s.state.Disks, spec)
	if err := s.save(); err != nil {
		return nil, errors.Join(err, device.Close(), s.leaveLocked(spec.Path))
	}
	return device, nil
}

// leaveLocked forgets a disk that the log does not use.
func (s *Server) leaveLocked(path string) error {
	s.state.Disks = slices.DeleteFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == path })
	delete(s.missing, path)
	return s.save()
}

// replaceDisk puts a disk in the place of another and fills it. It goes on when
// its client goes.
func (s *Server) replaceDisk(r *http.Request, log *openedLog) (work, error) {
	var request DiskRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid)
	}
	old := request.Old
	s.mu.Lock()
	i := slices.IndexFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == old })
	if i < 0 {
		s.mu.Unlock()
		return nil, fmt.Errorf("replace disk %s: the log has none of that path; torpor volume inspect lists them: %w", old, host.ErrNotFound)
	}
	// A log does not know the path of a disk that was missing when it was opened.
	id := orDefault(s.state.Disks[i].ID, old)
	s.mu.Unlock()
	return func(ctx context.Context, progress func(done, total int64)) (any, error) {
		s.mu.Lock()
		device, err := s.joinLocked(request.Disk)
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		err = log.ReplaceDisk(ctx, id, logDisk{request.Disk.Path, device}, progress)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil { // the new one may hold shards already: it stays
			return nil, fmt.Errorf("replace disk %s: %w", old, err)
		}
		err = s.leaveLocked(old)
		s.noteDisksLocked()
		return nil, errors.Join(err, s.save())
	}, nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// noteDisksLocked keeps what the log calls its disks.
func (s *Server) noteDisksLocked() {
	for _, d := range s.log.Describe().disks {
		for i := range s.state.Disks {
			if s.state.Disks[i].Path == d.Path {
				s.state.Disks[i].ID = d.ID
			}
		}
	}
}

// resumeRebuild goes on with a rebuild that an earlier server did not end.
func (s *Server) resumeRebuild() {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	if log == nil || !slices.ContainsFunc(log.Describe().disks, func(d DiskStatus) bool { return d.State == "filling" }) {
		return
	}
	_, err := s.begin(s.serving, "rebuild", func(ctx context.Context, progress func(done, total int64)) (any, error) {
		return nil, log.Rebuild(ctx, progress)
	})
	if err != nil {
		s.tell(host.EventVolume, "", err.Error())
	}
}

// scrub reads everything, compares it, and repairs if asked to.
func (s *Server) scrub(r *http.Request, log *openedLog) (work, error) {
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

// check compares the log's map, segments and layers with each other, and with
// the data if asked to.
func (*Server) check(r *http.Request, log *openedLog) (work, error) {
	var request JobRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid)
	}
	return func(ctx context.Context, progress func(done, total int64)) (any, error) {
		report, err := log.Check(ctx, request.Data, progress)
		if err != nil {
			return nil, fmt.Errorf("check: %w", err)
		}
		return report, nil
	}, nil
}
