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
		return errors.Join(fmt.Errorf("add disk %s: %w", r.Disk.Path, err), device.Close(), s.leaveLocked(r.Disk.Path), RemoveMade([]DiskSpec{r.Disk}))
	}
	s.noteDisksLocked()
	return s.save()
}

// joinLocked opens a disk that the log has not, and notes it.
func (s *Server) joinLocked(spec DiskSpec) (block.Device, error) {
	if slices.ContainsFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == spec.Path }) {
		return nil, fmt.Errorf("open disk %s: it is a disk of this log already: %w", spec.Path, host.ErrExists)
	}
	return s.noteLocked(spec, append(slices.Clone(s.state.Disks), spec))
}

// swapLocked opens a disk that is where a lost one was.
func (s *Server) swapLocked(spec DiskSpec) (block.Device, error) {
	disks := slices.Clone(s.state.Disks)
	disks[slices.IndexFunc(disks, func(d DiskSpec) bool { return d.Path == spec.Path })] = spec
	return s.noteLocked(spec, disks)
}

// checkLost refuses to put a disk in the very place of one that is in use.
func (s *Server) checkLost(old DiskSpec) error {
	for _, d := range s.log.Describe().disks {
		if d.ID == old.ID && d.State == "up" {
			return &host.Refusal{Reasons: []string{fmt.Sprintf("disk %s is in use; a disk in its place needs another path", old.Path)}}
		}
	}
	return nil
}

// noteLocked opens a disk, after it was made, and makes it one of the log's.
func (s *Server) noteLocked(spec DiskSpec, disks []DiskSpec) (block.Device, error) {
	if !filepath.IsAbs(spec.Path) {
		return nil, fmt.Errorf("open disk %q: not an absolute path: %w", spec.Path, host.ErrInvalid)
	}
	if spec.Made != "" {
		if err := makeDisk(spec); err != nil {
			return nil, err
		}
	}
	device, err := openDisk(spec, false, s.queue)
	if err != nil {
		return nil, errors.Join(err, RemoveMade([]DiskSpec{spec}))
	}
	s.state.Disks = disks
	if err := s.save(); err != nil {
		return nil, errors.Join(err, device.Close(), RemoveMade([]DiskSpec{spec}))
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
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.state.Disks, func(d DiskSpec) bool { return d.Path == request.Old })
	if i < 0 {
		return nil, fmt.Errorf("replace disk %s: the log has none of that path; torpor volume inspect lists them: %w", request.Old, host.ErrNotFound)
	}
	old := s.state.Disks[i]
	return func(ctx context.Context, progress func(done, total int64)) (any, error) {
		if err := s.fill(ctx, log, old, request.Disk, progress); err != nil {
			return nil, fmt.Errorf("replace disk %s: %w", old.Path, err)
		}
		return nil, nil
	}, nil
}

// fill is the work of replaceDisk.
func (s *Server) fill(ctx context.Context, log *openedLog, old, fresh DiskSpec, progress func(done, total int64)) error {
	s.mu.Lock()
	before := s.state.Disks
	join := s.joinLocked
	var err error
	if fresh.Path == old.Path {
		// What the log has open there is locked against being opened again.
		join, err = s.swapLocked, s.checkLost(old)
		if err == nil {
			err = log.ReleaseDisk(orDefault(old.ID, old.Path))
		}
	}
	var device block.Device
	if err == nil {
		device, err = join(fresh)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	// A log does not know the path of a disk that was missing when it was opened.
	err = log.ReplaceDisk(ctx, orDefault(old.ID, old.Path), logDisk{fresh.Path, device}, progress)
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := slices.ContainsFunc(log.Describe().disks, func(d DiskStatus) bool { return d.Path == fresh.Path })
	switch {
	case err == nil:
		err = s.retireLocked(old, fresh)
	case !taken:
		s.state.Disks = before
		err = errors.Join(err, device.Close(), RemoveMade([]DiskSpec{fresh}))
	}
	s.noteDisksLocked()
	return errors.Join(err, s.save())
}

// retireLocked forgets a disk that another one took the place of, and removes what
// was made for it.
func (s *Server) retireLocked(old, fresh DiskSpec) error {
	var err error
	if old.Path != fresh.Path {
		err = s.leaveLocked(old.Path)
	}
	delete(s.missing, old.Path)
	if old.Made == fresh.Made {
		return err
	}
	if removed := RemoveMade([]DiskSpec{old}); removed != nil {
		// It was replaced because it is broken, perhaps.
		s.tell(host.EventVolume, "", "what was made for disk "+old.Path+" stays: "+removed.Error())
	}
	return err
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
