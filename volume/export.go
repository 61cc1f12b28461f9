package volume

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"torpor/block"
	"torpor/host"
)

// openVolume is a volume with exports.
type openVolume struct {
	device   block.Device
	attached *attachment // nil: none
	servers  []*nbdExport
	specs    []ExportSpec // of servers
	problem  error        // why one that should exist does not
}

// close ends the exports; those in use, too.
func (v *openVolume) close() error {
	var errs []error
	for _, n := range v.servers {
		errs = append(errs, n.Close())
	}
	if v.attached != nil {
		errs = append(errs, v.attached.Close())
	}
	return errors.Join(append(errs, v.device.Close())...)
}

// findLocked returns what should be of a volume.
func (s *Server) findLocked(name string) (*VolumeState, error) {
	if _, err := s.openedLocked(); err != nil {
		return nil, err
	}
	v := s.state.Volumes[name]
	if v == nil {
		return nil, fmt.Errorf("find volume %s: %w", name, host.ErrNotFound)
	}
	return v, nil
}

// useLocked opens a volume, if it is not.
func (s *Server) useLocked(name string) (*openVolume, error) {
	if v := s.volumes[name]; v != nil {
		return v, nil
	}
	device, err := s.log.OpenVolume(name)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", name, err)
	}
	v := &openVolume{device: device}
	s.volumes[name] = v
	return v, nil
}

// dropLocked closes a volume that has no exports any more, and with the last of
// them a log that failed: then its disks can be brought back.
func (s *Server) dropLocked(name string) error {
	v := s.volumes[name]
	if v == nil || v.attached != nil || len(v.servers) > 0 {
		return nil
	}
	delete(s.volumes, name)
	err := v.device.Close()
	if d := s.log.Describe(); d.health == Failed && len(s.volumes) == 0 {
		_ = s.closeLogLocked() // what could not be written is known
		s.failure = errors.New(d.reason + "; bring its disks back, and attach it again")
		return nil
	}
	return err
}

// exportLocked makes the exports of a volume that should exist and do not. What
// an earlier server had suspended goes on.
func (s *Server) exportLocked(name string, handed handoff) {
	want := s.state.Volumes[name]
	if len(want.Holders) == 0 && len(want.Exports) == 0 {
		return
	}
	v, err := s.useLocked(name)
	if err != nil {
		s.tell(host.EventVolume, name, err.Error())
		return
	}
	var errs []error
	if len(want.Holders) > 0 && v.attached == nil {
		if suspended, ok := handed.Attached[name]; ok {
			delete(handed.Attached, name)
			v.attached, err = resumeHost(v.device, suspended)
		} else {
			v.attached, err = attachHost(v.device, s.exportsDir(), name)
		}
		errs = append(errs, err)
	}
	for _, spec := range want.Exports {
		if slices.Contains(v.specs, spec) {
			continue
		}
		var server *nbdExport
		if suspended, ok := handed.Served[spec.Listen]; ok {
			delete(handed.Served, spec.Listen)
			server, err = resumeNBD(v.device, name, spec, suspended)
		} else {
			server, err = listenNBD(v.device, name, spec)
		}
		if err == nil {
			v.servers, v.specs = append(v.servers, server), append(v.specs, spec)
		}
		errs = append(errs, err)
	}
	if v.problem = errors.Join(errs...); v.problem != nil {
		s.tell(host.EventVolume, name, v.problem.Error())
	}
}

// attach makes a volume a block device of this host for a holder. It may be
// repeated.
func (s *Server) attach(r VolumeRequest) (Attachment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil && s.state.Phase == Ready {
		s.openLocked(handoff{}) // its disks may be back
	}
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return Attachment{}, err
	}
	if r.Holder == "" {
		r.Holder = User
	}
	if r.Holder == User && want.Format == Unformatted {
		want.Format = Foreign // nobody knows what its user writes
	}
	if !slices.Contains(want.Holders, r.Holder) {
		want.Holders = append(want.Holders, r.Holder)
	}
	// What should exist is noted first: who finds a device can rely on its coming back.
	if err := s.save(); err != nil {
		return Attachment{}, err
	}
	v, err := s.useLocked(r.Volume)
	if err != nil {
		return Attachment{}, err
	}
	if v.attached == nil {
		if v.attached, err = attachHost(v.device, s.exportsDir(), r.Volume); err != nil {
			v.attached = nil
			want.Holders = slices.DeleteFunc(want.Holders, func(h Holder) bool { return h == r.Holder })
			return Attachment{}, errors.Join(fmt.Errorf("attach volume %s: %w", r.Volume, err), s.save(), s.dropLocked(r.Volume))
		}
	}
	v.problem = nil
	return Attachment{Device: v.attached.Path(), FS: want.FS, Format: want.Format}, nil
}

// detach lets go of the block device; it is gone when nobody wants it. A holder
// that has none is no error.
func (s *Server) detach(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return err
	}
	if r.Holder == "" {
		r.Holder = User
	}
	left := slices.DeleteFunc(slices.Clone(want.Holders), func(h Holder) bool { return h == r.Holder })
	v := s.volumes[r.Volume]
	if len(left) == 0 && v != nil && v.attached != nil {
		if err := v.attached.Close(); err != nil {
			return fmt.Errorf("detach volume %s: %w", r.Volume, err)
		}
		v.attached = nil
	}
	cleanExports(s.exportsDir())
	want.Holders = left
	return errors.Join(s.save(), s.dropLocked(r.Volume))
}

// export serves a volume by NBD. It may be repeated.
func (s *Server) export(r VolumeRequest) (ExportStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return ExportStatus{}, err
	}
	if r.Export.Listen == "" {
		r.Export.Listen = "unix:" + filepath.Join(s.config.RunDir, "volumes", r.Volume+".nbd")
	}
	for other, state := range s.state.Volumes {
		for _, e := range state.Exports {
			if e.Listen == r.Export.Listen && (other != r.Volume || e != r.Export) {
				return ExportStatus{}, fmt.Errorf("export volume %s: volume %s is exported at %s, end that first (torpor volume export --end): %w",
					r.Volume, other, e.Listen, host.ErrExists)
			}
		}
	}
	v, err := s.useLocked(r.Volume)
	if err != nil {
		return ExportStatus{}, err
	}
	if i := slices.Index(v.specs, r.Export); i >= 0 {
		return exportStatus(v.specs[i], v.servers[i]), nil
	}
	server, err := listenNBD(v.device, r.Volume, r.Export)
	if err != nil {
		return ExportStatus{}, errors.Join(fmt.Errorf("export volume %s: %w", r.Volume, err), s.dropLocked(r.Volume))
	}
	v.servers, v.specs = append(v.servers, server), append(v.specs, r.Export)
	if !slices.Contains(want.Exports, r.Export) {
		want.Exports = append(want.Exports, r.Export)
	}
	if want.Format == Unformatted && !r.Export.ReadOnly {
		want.Format = Foreign
	}
	return exportStatus(r.Export, server), s.save()
}

// unexport ends NBD servers of a volume: the one at r.Export.Listen, or all.
func (s *Server) unexport(r VolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, err := s.findLocked(r.Volume)
	if err != nil {
		return err
	}
	meant := func(e ExportSpec) bool { return r.Export.Listen == "" || e.Listen == r.Export.Listen }
	if !slices.ContainsFunc(want.Exports, meant) {
		return fmt.Errorf("end export of volume %s: it is not exported there: %w", r.Volume, host.ErrNotFound)
	}
	want.Exports = slices.DeleteFunc(want.Exports, meant)
	errs := []error{s.save()}
	if v := s.volumes[r.Volume]; v != nil {
		for i := len(v.servers) - 1; i >= 0; i-- {
			if meant(v.specs[i]) {
				errs = append(errs, v.servers[i].Close())
				v.servers, v.specs = slices.Delete(v.servers, i, i+1), slices.Delete(v.specs, i, i+1)
			}
		}
	}
	return errors.Join(append(errs, s.dropLocked(r.Volume))...)
}

func exportStatus(spec ExportSpec, server *nbdExport) ExportStatus {
	return ExportStatus{ExportSpec: spec, URI: server.URI(), Clients: server.Clients()}
}
