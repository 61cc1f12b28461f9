package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"torpor/block/backing"
	"torpor/block/hostdev"
	"torpor/block/logvolume"
	"torpor/block/nbd"
	"torpor/kernel/aio"
	"torpor/kernel/mount"
)

// Layout of what is measured, for both sides.
const (
	dataDisks   = 4
	parityDisks = 2
	allDisks    = dataDisks + parityDisks
)

// stack is one way to keep bytes on six disks.
type stack interface {
	name() string
	setup(ctx context.Context) error // begins empty
	where() []string                 // arguments of fio that name what to read and write
	fit(args []string) []string      // makes arguments for files those for this
	settle() error                   // writes out what may be in memory
	degrade(ctx context.Context) error
	teardown() error // also after errors, and more than once
}

// command runs a program.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, out)
	}
	return nil
}

// mountPoint is a directory with a file system that has one file to measure.
type mountPoint struct {
	dir     string
	mounted bool
}

func (m *mountPoint) mount(kind, device string, options ...string) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	err := mount.Device(kind, device, m.dir, options)
	m.mounted = err == nil
	return err
}

func (m *mountPoint) unmount() error {
	if !m.mounted {
		return nil
	}
	err := mount.Unmount(m.dir)
	m.mounted = err != nil
	return err
}

func (m *mountPoint) where() []string {
	return []string{"--filename=" + filepath.Join(m.dir, "file"), "--direct=1"}
}

// btrfsStack is a file on btrfs with RAID6.
type btrfsStack struct {
	disks *diskSet
	at    mountPoint
	taken bool
}

func (s *btrfsStack) name() string               { return "btrfs" }
func (s *btrfsStack) where() []string            { return s.at.where() }
func (s *btrfsStack) fit(args []string) []string { return args }
func (s *btrfsStack) settle() error              { return mount.Sync(s.at.dir) }

func (s *btrfsStack) setup(ctx context.Context) error {
	args := append([]string{"-q", "-f", "-K", "-d", "raid6", "-m", "raid1c3"}, s.disks.names(0)...)
	if err := command(ctx, "mkfs.btrfs", args...); err != nil {
		return err
	}
	if err := command(ctx, "btrfs", append([]string{"device", "scan"}, s.disks.names(0)...)...); err != nil {
		return err
	}
	return s.at.mount("btrfs", s.disks.names(0)[0])
}

func (s *btrfsStack) degrade(ctx context.Context) error {
	if err := s.at.unmount(); err != nil {
		return err
	}
	if err := command(ctx, "btrfs", append([]string{"device", "scan", "--forget"}, s.disks.names(0)...)...); err != nil {
		return err
	}
	s.taken = true
	if err := s.disks.take(parityDisks); err != nil {
		return err
	}
	left := s.disks.names(parityDisks)
	if err := command(ctx, "btrfs", append([]string{"device", "scan"}, left...)...); err != nil {
		return err
	}
	return s.at.mount("btrfs", left[0], "degraded")
}

func (s *btrfsStack) teardown() error {
	if err := s.at.unmount(); err != nil {
		return err
	}
	err := command(context.Background(), "btrfs", "device", "scan", "--forget")
	if s.taken {
		s.taken = false
		err = errors.Join(err, s.disks.give(parityDisks))
	}
	return err
}

// logStack is a volume in a log: a file on ext4 on the exported device, the
// device, or an NBD server.
type logStack struct {
	kind      string // of logKinds
	disks     *diskSet
	dir       string
	sizeBytes int64 // of the volume
	queue     *aio.Queue
	log       *logvolume.Log
	volume    *logvolume.Volume
	export    *hostdev.Export
	server    *nbd.Server
	served    chan error // Serve's end
	at        mountPoint
}

// logKinds are the ways to use a volume.
var logKinds = []string{"ext4", "device", "nbd"}

const volumeName = "bench"

func (s *logStack) name() string   { return "log " + s.kind }
func (s *logStack) socket() string { return filepath.Join(s.dir, "nbd.sock") }

func (s *logStack) where() []string {
	switch s.kind {
	case "ext4":
		return s.at.where()
	case "nbd":
		return []string{"--ioengine=nbd", "--uri=nbd+unix:///" + volumeName + "?socket=" + s.socket()}
	}
	return []string{"--filename=" + s.export.Path(), "--direct=1"}
}

// fit: fio's engine for NBD has one kind of sync only.
func (s *logStack) fit(args []string) []string {
	fitted := slices.Clone(args)
	for i, a := range fitted {
		if s.kind == "nbd" && a == "--fdatasync=1" {
			fitted[i] = "--fsync=1"
		}
	}
	return fitted
}

func (s *logStack) settle() error {
	if s.at.mounted {
		return mount.Sync(s.at.dir)
	}
	return s.volume.Flush()
}

func (s *logStack) setup(ctx context.Context) error {
	disks, err := s.openDisks(s.disks.names(0))
	if err != nil {
		return err
	}
	err = logvolume.Create(disks, logvolume.Spec{DataShards: dataDisks, ParityShards: parityDisks, Force: true})
	if err := s.openLog(disks, err); err != nil {
		return err
	}
	if err := s.log.CreateVolume(volumeName, s.sizeBytes); err != nil {
		return err
	}
	if err := s.offer(); err != nil || s.kind != "ext4" {
		return err
	}
	if err := command(ctx, "mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", s.export.Path()); err != nil {
		return err
	}
	return s.at.mount("ext4", s.export.Path())
}

func (s *logStack) openDisks(paths []string) (disks []logvolume.Disk, err error) {
	if s.queue, err = aio.NewQueue(backing.QueueRequests); err != nil {
		return nil, err
	}
	for _, path := range paths {
		f, err := backing.OpenFile(path, backing.Options{Direct: true, Queue: s.queue})
		if err != nil {
			return nil, errors.Join(err, closeDisks(disks))
		}
		disks = append(disks, logvolume.Disk{Name: path, Device: f})
	}
	return disks, nil
}

func closeDisks(disks []logvolume.Disk) (err error) {
	for _, d := range disks {
		err = errors.Join(err, d.Device.Close())
	}
	return err
}

// openLog opens the log unless there was an error.
func (s *logStack) openLog(disks []logvolume.Disk, err error) error {
	if err == nil {
		s.log, err = logvolume.Open(disks, logvolume.Options{})
	}
	if err != nil {
		s.log = nil
		return errors.Join(err, closeDisks(disks))
	}
	return nil
}

// offer exports the volume.
func (s *logStack) offer() (err error) {
	if s.volume, err = s.log.OpenVolume(volumeName); err != nil {
		return err
	}
	if s.kind != "nbd" {
		s.export, err = hostdev.Attach(s.volume, hostdev.Spec{Name: volumeName, MountDir: filepath.Join(s.dir, "export")})
		return err
	}
	if s.server, err = nbd.New(nbd.ServerSpec{}); err != nil {
		return err
	}
	if err := s.server.Add(nbd.Export{Name: volumeName, Device: s.volume}); err != nil {
		return err
	}
	listener, err := net.Listen("unix", s.socket())
	if err != nil {
		return err
	}
	s.served = make(chan error, 1)
	server, served := s.server, s.served
	go func() { served <- server.Serve(listener) }() // ends with Close
	return nil
}

func (s *logStack) degrade(ctx context.Context) error {
	if err := s.teardown(); err != nil {
		return err
	}
	disks, err := s.openDisks(s.disks.names(parityDisks))
	if err != nil {
		return err
	}
	if err := s.openLog(disks, nil); err != nil {
		return err
	}
	if err := s.offer(); err != nil || s.kind != "ext4" {
		return err
	}
	return s.at.mount("ext4", s.export.Path())
}

func (s *logStack) teardown() error {
	if err := s.at.unmount(); err != nil {
		return err
	}
	var err error
	if s.export != nil {
		err = s.export.Detach()
		s.export = nil
	}
	if s.server != nil {
		err = errors.Join(err, s.server.Close())
		if s.served != nil {
			<-s.served
		}
		s.server, s.served = nil, nil
	}
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
		s.log, s.volume = nil, nil
	}
	if s.queue != nil {
		err = errors.Join(err, s.queue.Close())
		s.queue = nil
	}
	return err
}
