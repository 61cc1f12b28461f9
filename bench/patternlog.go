package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"torpor/block"
	"torpor/block/backing"
	"torpor/block/logvolume"
	"torpor/block/memory"
)

// patternLog is a log with one volume on pattern devices.
type patternLog struct {
	disks   []*patternDevice
	paths   []string // of the inner files; nil if they are in memory
	options logvolume.Options
	log     *logvolume.Log
	volume  *logvolume.Volume
}

// newPatternLog makes a log. What does not repeat is in files of a directory, or
// in memory if dir is "".
func newPatternLog(dir string, diskBytes, volumeBytes int64, spec logvolume.Spec, o logvolume.Options) (*patternLog, error) {
	p := &patternLog{options: o}
	for i := range spec.DataShards + spec.ParityShards {
		path := ""
		if dir != "" {
			path = filepath.Join(dir, fmt.Sprintf("sparse%d", i))
			if err := backing.CreateFile(path, diskBytes, false); err != nil {
				return nil, errors.Join(err, p.remove())
			}
			p.paths = append(p.paths, path)
		}
		inner, err := openInner(path, diskBytes)
		if err != nil {
			return nil, errors.Join(err, p.remove())
		}
		p.disks = append(p.disks, newPatternDevice(inner))
	}
	if err := logvolume.Create(p.logDisks(), spec); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	if err := p.open(); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	err := p.log.CreateVolume(volumeName, volumeBytes)
	if err == nil {
		p.volume, err = p.log.OpenVolume(volumeName)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func openInner(path string, diskBytes int64) (block.Device, error) {
	if path == "" {
		return memory.New(memory.Spec{SizeBytes: diskBytes})
	}
	return backing.OpenFile(path, backing.Options{Direct: true})
}

func (p *patternLog) logDisks() []logvolume.Disk {
	var disks []logvolume.Disk
	for i, d := range p.disks {
		disks = append(disks, logvolume.Disk{Name: fmt.Sprintf("disk%d", i), Device: d})
	}
	return disks
}

func (p *patternLog) open() (err error) {
	p.log, err = logvolume.Open(p.logDisks(), p.options)
	return err
}

// crash ends the log as if the power was cut: nothing reaches the disks any
// more. Files only: the content of devices in memory ends with them.
func (p *patternLog) crash() error {
	for _, d := range p.disks {
		if err := d.Close(); err != nil {
			return err
		}
	}
	p.log.Close() // which can do nothing
	p.log = nil
	return p.openDisks()
}

// openDisks makes devices anew with the content of those that were closed.
func (p *patternLog) openDisks() error {
	for i, d := range p.disks {
		inner, err := openInner(p.paths[i], 0)
		if err != nil {
			return err
		}
		p.disks[i] = d.open(inner)
	}
	return nil
}

// reopen closes the log in order and opens it with other options.
func (p *patternLog) reopen(o logvolume.Options) error {
	err := p.log.Close()
	p.log, p.options = nil, o
	if err != nil {
		return err
	}
	if err := p.openDisks(); err != nil {
		return err
	}
	return p.openVolume()
}

func (p *patternLog) openVolume() (err error) {
	if err := p.open(); err != nil {
		return err
	}
	p.volume, err = p.log.OpenVolume(volumeName)
	return err
}

// close closes and removes everything.
func (p *patternLog) close() error {
	var err error
	if p.log != nil {
		err = p.log.Close()
	}
	return errors.Join(err, p.remove())
}

func (p *patternLog) remove() (err error) {
	for _, d := range p.disks {
		if problem := d.Close(); !errors.Is(problem, block.ErrClosed) {
			err = errors.Join(err, problem)
		}
	}
	for _, path := range p.paths {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
