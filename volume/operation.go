package volume

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"torpor/block"
	"torpor/host"
)

// namePattern is what volumes and snapshots may be called: it becomes a
// directory, and "@" stands between the two.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// longestName bounds names of volumes and snapshots, in bytes.
const longestName = 200

// CheckName returns host.ErrInvalid for what can not be a volume's name, or a
// snapshot's.
func CheckName(name string) error {
	if !namePattern.MatchString(name) || len(name) > longestName {
		return fmt.Errorf("name %q: letters, digits, _, . and - are allowed, %d at most: %w", name, longestName, host.ErrInvalid)
	}
	return nil
}

// wholeBlocks rounds a size up.
func wholeBlocks(sizeBytes int64) int64 {
	return (sizeBytes + block.BlockBytes - 1) &^ (block.BlockBytes - 1)
}

// create formats the disks of a new log and makes its first volume. After an
// error the log is still new.
func (s *Server) create(r CreateRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := CheckName(r.Volume); err != nil {
		return err
	}
	if r.SizeBytes <= 0 {
		return fmt.Errorf("create volume %s: %d bytes: %w", r.Volume, r.SizeBytes, host.ErrInvalid)
	}
	if s.state.Phase != New {
		return fmt.Errorf("create log %s: %w", s.state.ID, host.ErrExists)
	}
	disks, err := s.makeDisksLocked()
	if err == nil {
		err = createLog(disks, s.state.Layout, r.Force)
	}
	if err == nil {
		s.log, err = openLog(disks, s.observe)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create volume %s: %w", r.Volume, err), closeDisks(disks))
	}
	err = s.log.CreateVolume(r.Volume, wholeBlocks(r.SizeBytes))
	if err == nil {
		s.state.Phase = Ready
		s.noteDisksLocked()
		s.state.Volumes[r.Volume] = &VolumeState{FS: r.FS}
		err = s.save()
	}
	if err != nil {
		s.state.Phase = New
		return errors.Join(fmt.Errorf("create volume %s: %w", r.Volume, err), s.closeLogLocked())
	}
	return nil
}

// makeDisksLocked makes the disks that are to be made, and opens all.
func (s *Server) makeDisksLocked() ([]logDisk, error) {
	for _, spec := range s.state.Disks {
		if spec.Made == "" {
			continue
		}
		if err := makeDisk(spec); err != nil {
			return nil, err
		}
	}
	disks := s.openDisksLocked()
	return disks, errors.Join(slices.Collect(maps.Values(s.missing))...)
}

// retry opens a log that could not be opened, and makes exports that could not
// be made.
func (s *Server) retry() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Phase != Ready {
		return nil
	}
	if s.log == nil {
		s.openLocked(handoff{})
		return s.failure
	}
	var errs []error
	for name := range s.state.Volumes {
		s.exportLocked(name, handoff{})
		if v := s.volumes[name]; v != nil {
			errs = append(errs, v.problem)
		}
	}
	return errors.Join(errs...)
}

func (s *Server) snapshot(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := CheckName(r.Snapshot); err != nil {
		return err
	}
	if _, err := s.findLocked(r.Volume); err != nil {
		return err
	}
	return s.log.Snapshot(r.Volume, r.Snapshot)
}

// clone makes a volume of a snapshot. The clone holds what the snapshot does, a
// file system too.
func (s *Server) clone(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := CheckName(r.Clone); err != nil {
		return err
	}
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return err
	}
	if err := s.log.Clone(r.Volume, r.Snapshot, r.Clone); err != nil {
		return err
	}
	clone := &VolumeState{FS: want.FS, Format: want.Format}
	if clone.Format != Formatted {
		clone.Format = Foreign
	}
	s.state.Volumes[r.Clone] = clone
	return s.save()
}

// resize changes a volume's size, and that of its block device. What is behind
// the end of a smaller one is gone.
func (s *Server) resize(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return err
	}
	size := wholeBlocks(r.SizeBytes)
	for _, v := range s.log.Describe().volumes {
		if v.name == r.Volume && size < v.sizeBytes && (len(want.Holders) > 0 || !r.Force) {
			return &host.Refusal{Reasons: []string{fmt.Sprintf(
				"volume %s has %d bytes; what is behind %d would be lost: shrink its file system, detach it and say --force", r.Volume, v.sizeBytes, size)}}
		}
	}
	if err := s.log.Resize(r.Volume, size); err != nil {
		return err
	}
	if v := s.volumes[r.Volume]; v != nil && v.attached != nil {
		return v.attached.Resize()
	}
	return nil
}

// remove takes a snapshot away, or a volume that nobody has; with Force, NBD
// clients are sent away. With its last volume the log is gone.
func (s *Server) remove(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return err
	}
	if r.Snapshot != "" {
		return s.log.Remove(r.Volume, r.Snapshot)
	}
	if err := s.giveUpLocked(r, want); err != nil {
		return err
	}
	if len(s.state.Volumes) > 1 {
		for _, v := range s.log.Describe().volumes {
			for i := range v.snapshots {
				if v.name != r.Volume {
					continue
				}
				// A clone may need what it holds; that goes when the clone does.
				if err := s.log.Remove(r.Volume, v.snapshots[i].Name); err != nil {
					return err
				}
			}
		}
		if err := s.log.Remove(r.Volume, ""); err != nil {
			return err
		}
		delete(s.state.Volumes, r.Volume)
		return s.save()
	}
	return s.removeLogLocked()
}

// giveUpLocked ends what a volume is used for, or refuses.
func (s *Server) giveUpLocked(r VolumeRequest, want *VolumeState) error {
	v := s.volumes[r.Volume]
	if !r.Force && (len(want.Holders) > 0 || len(want.Exports) > 0) {
		var uses []string
		if len(want.Holders) > 0 && v != nil && v.attached != nil {
			uses = append(uses, "attached at "+v.attached.Path())
		}
		for _, e := range want.Exports {
			uses = append(uses, "exported at "+e.Listen)
		}
		return &host.Refusal{Reasons: []string{fmt.Sprintf("volume %s is %s; detach it, or say --force", r.Volume, strings.Join(uses, " and "))}}
	}
	if v != nil {
		if v.attached != nil {
			if err := v.attached.Close(); err != nil {
				return fmt.Errorf("detach volume %s: %w", r.Volume, err)
			}
			v.attached = nil
		}
		delete(s.volumes, r.Volume)
		if err := v.close(); err != nil {
			return err
		}
	}
	want.Holders, want.Exports = nil, nil
	return s.save()
}

// removeLogLocked removes the log: its state says so first, then its disks are
// not those of a log any more, and what was made for it goes.
func (s *Server) removeLogLocked() error {
	s.state.Phase = Removed
	clear(s.state.Volumes)
	if err := s.save(); err != nil {
		return err
	}
	err := errors.Join(s.closeLogLocked(), s.wipeLocked(), RemoveMade(s.state.Disks))
	s.end()
	return err
}

// wipeBytes is what is overwritten at the beginning of a disk: its superblocks.
const wipeBytes = 1 << 20

// wipeLocked overwrites the superblocks of disks that stay. Those that are
// missing are not the log's any more either.
func (s *Server) wipeLocked() error {
	var errs []error
	for _, spec := range s.state.Disks {
		if spec.Made != "" {
			continue
		}
		d, err := openDisk(spec, false, nil)
		if err != nil {
			continue
		}
		errs = append(errs, d.Zero(block.Range{LenBytes: min(wipeBytes, d.Info().SizeBytes)}, 0), d.Flush(), d.Close())
	}
	return errors.Join(errs...)
}

// RemoveMade removes the files and directories that were made for a log.
func RemoveMade(disks []DiskSpec) error {
	var errs []error
	for _, d := range disks {
		if d.Made != "" {
			errs = append(errs, os.RemoveAll(d.Made))
		}
	}
	return errors.Join(errs...)
}

// beginFormat answers whether the caller may make a file system: nobody else has
// had the volume, and it is blank, or an earlier making was not finished.
func (s *Server) beginFormat(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return err
	}
	if want.Format != Unformatted && want.Format != Formatting {
		return &host.Refusal{Reasons: []string{fmt.Sprintf("volume %s is %s: it may hold data, and is not formatted", r.Volume, want.Format)}}
	}
	if want.Format == Unformatted {
		v, err := s.useLocked(r.Volume)
		if err != nil {
			return err
		}
		blank, err := isBlank(v.device)
		if err = errors.Join(err, s.dropLocked(r.Volume)); err != nil {
			return err
		}
		if !blank {
			return &host.Refusal{Reasons: []string{fmt.Sprintf("volume %s holds data, and is not formatted", r.Volume)}}
		}
	}
	want.FS, want.Format = r.FS, Formatting
	return s.save()
}

// endFormat notes that the file system is made. From now on it holds data.
func (s *Server) endFormat(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return err
	}
	if want.Format != Formatting {
		return fmt.Errorf("end format of volume %s: it is %q: %w", r.Volume, want.Format, host.ErrInvalid)
	}
	want.Format = Formatted
	return s.save()
}

// isBlank says whether nothing was ever written to a thin device.
func isBlank(d block.Device) (bool, error) {
	info := d.Info()
	const step = 1 << 30
	for at := int64(0); at < info.SizeBytes; at += step {
		extents, err := d.Status(block.Range{Start: block.Offset(at), LenBytes: min(step, info.SizeBytes-at)})
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(extents, func(e block.Extent) bool { return e.Kind == block.Data }) {
			return false, nil
		}
	}
	return true, nil
}
