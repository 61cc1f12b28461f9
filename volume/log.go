package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"torpor/block"
	"torpor/block/logvolume"
	"torpor/host"
)

// logDisk is a disk for a log: its name is its path.
type logDisk struct {
	name   string
	device block.Device
}

// createLog formats disks. What users gave must be blank, unless forced.
func createLog(disks []logDisk, layout host.Layout, force bool) error {
	for _, d := range disks {
		if force {
			break
		}
		what, err := holdsSomething(d)
		if err != nil {
			return err
		}
		if what != "" {
			return &host.Refusal{Reasons: []string{fmt.Sprintf("disk %s holds %s; say --force if that may be lost", d.name, what)}}
		}
	}
	return kind(logvolume.Create(logDisks(disks), logvolume.Spec{DataShards: layout.Data, ParityShards: layout.Parity, Force: force}))
}

func logDisks(disks []logDisk) []logvolume.Disk {
	var all []logvolume.Disk
	for _, d := range disks {
		all = append(all, logvolume.Disk{Name: d.name, Device: d.device})
	}
	return all
}

// kinds are those of errors that commands tell apart.
var kinds = []struct{ err, kind error }{
	{logvolume.ErrNoVolume, host.ErrNotFound},
	{logvolume.ErrExists, host.ErrExists},
	{logvolume.ErrName, host.ErrInvalid},
	{logvolume.ErrNoDisk, host.ErrNotFound},
	{logvolume.ErrInUse, host.ErrExists},
	{logvolume.ErrTooFewDisks, host.ErrInvalid},
	{logvolume.ErrNotALog, host.ErrCorrupt},
	{block.ErrCorrupt, host.ErrCorrupt},
}

// kind gives an error of a log its kind.
func kind(err error) error {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return fmt.Errorf("%w: %w", err, k.kind)
		}
	}
	return err
}

// openedLog is an open log, whose errors have kinds of package host.
type openedLog struct{ log *logvolume.Log }

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

// openLog recovers a log. It owns the disks then.
func openLog(disks []logDisk, event func(reason string)) (*openedLog, error) {
	if len(disks) == 0 {
		return nil, fmt.Errorf("open log: none of its disks is there: %w", host.ErrNotFound)
	}
	log, err := logvolume.Open(logDisks(disks), logvolume.Options{Events: func(e logvolume.Event) { event(e.Reason) }})
	if err != nil {
		return nil, kind(err)
	}
	return &openedLog{log}, nil
}

// CreateVolume makes an empty volume.
func (o *openedLog) CreateVolume(name string, sizeBytes int64) error {
	return kind(o.log.CreateVolume(name, sizeBytes))
}

// OpenVolume opens a volume, once at a time.
func (o *openedLog) OpenVolume(name string) (block.Device, error) {
	v, err := o.log.OpenVolume(name)
	if err != nil {
		return nil, kind(err)
	}
	return v, nil
}

// Snapshot keeps what a volume holds.
func (o *openedLog) Snapshot(volume, snapshot string) error {
	return kind(o.log.Snapshot(volume, snapshot))
}

// Clone makes a volume of a snapshot.
func (o *openedLog) Clone(volume, snapshot, newVolume string) error {
	return kind(o.log.Clone(volume, snapshot, newVolume))
}

// Remove removes a volume, or a snapshot.
func (o *openedLog) Remove(volume, snapshot string) error {
	return kind(o.log.Remove(volume, snapshot))
}

// Resize changes a volume's size.
func (o *openedLog) Resize(volume string, sizeBytes int64) error {
	return kind(o.log.Resize(volume, sizeBytes))
}

// AddDisk gives the log another disk.
func (o *openedLog) AddDisk(d logDisk) error {
	return kind(o.log.AddDisk(logvolume.Disk{Name: d.name, Device: d.device}))
}

// ReplaceDisk fills a disk with what another one held.
func (o *openedLog) ReplaceDisk(ctx context.Context, old string, d logDisk, progress func(done, total int64)) error {
	err := o.log.ReplaceDisk(ctx, old, logvolume.Disk{Name: d.name, Device: d.device}, o.inBytes(progress))
	if errors.Is(err, logvolume.ErrNeeded) {
		return &host.Refusal{Reasons: []string{err.Error() + "; replace first those that are out, or bring them back"}}
	}
	return kind(err)
}

// ReleaseDisk closes a disk that is out.
func (o *openedLog) ReleaseDisk(name string) error { return kind(o.log.ReleaseDisk(name)) }

// Rebuild goes on with what an earlier process began.
func (o *openedLog) Rebuild(ctx context.Context, progress func(done, total int64)) error {
	return kind(o.log.Rebuild(ctx, o.inBytes(progress)))
}

// inBytes turns progress in segments into bytes of data.
func (o *openedLog) inBytes(progress func(done, total int64)) logvolume.Progress {
	s := o.log.Stats()
	each := s.ShardBytes * int64(s.DataShards)
	return func(done, total int) { progress(int64(done)*each, int64(total)*each) }
}

// Scrub reads everything.
func (o *openedLog) Scrub(ctx context.Context, repair bool, progress func(done, total int64)) (Report, error) {
	r, err := o.log.Scrub(ctx, repair, o.inBytes(progress))
	return scrubbed(r), kind(err)
}

func scrubbed(r logvolume.ScrubReport) Report {
	report := Report{ReadBytes: r.Blocks * block.BlockBytes, Found: r.WrongBlocks + int64(len(r.Lost)), Repaired: r.RepairedBlocks, Damages: r.Lost}
	return report
}

// Check compares the log's structures, and its data with checksums.
func (o *openedLog) Check(ctx context.Context, data bool, progress func(done, total int64)) (Report, error) {
	r, err := o.log.Check(ctx, data, o.inBytes(progress))
	report := scrubbed(r.Scrub)
	report.Damages = append(r.Problems, report.Damages...)
	report.Found += int64(len(r.Problems))
	return report, kind(err)
}

// Describe says how the log is.
func (o *openedLog) Describe() logDescription {
	s := o.log.Stats()
	d := logDescription{health: Health(s.State), reason: s.Failure, capacityBytes: s.CapacityBytes, usedBytes: s.UsedBytes, volumes: o.volumes(),
		written: Written{UserBytes: s.UserBytes, DiskBytes: s.HotBytes + s.ColdBytes + s.MetaBytes + s.JournalBytes + s.ParityBytes}}
	for _, disk := range s.Disks {
		state := disk.State
		if disk.Missing {
			state = "missing"
		}
		d.disks = append(d.disks, DiskStatus{ID: disk.ID, Path: disk.Name, State: state, Reason: disk.Reason,
			SizeBytes: int64(disk.Slots) * s.ShardBytes, UsedBytes: int64(disk.UsedSlots) * s.ShardBytes, Errors: disk.ReadErrors + disk.WriteErrors + disk.WrongBlocks})
		if state != "up" {
			d.out = append(d.out, disk.Name)
		}
	}
	return d
}

// volumes lists volumes with their snapshots.
func (o *openedLog) volumes() []volumeDescription {
	byName := map[string]*volumeDescription{}
	infos := o.log.Volumes()
	for _, info := range infos {
		if info.Snapshot == "" {
			origin := info.Origin
			if strings.HasPrefix(origin, info.Volume+"@") { // its own newest
				origin = ""
			}
			byName[info.Volume] = &volumeDescription{name: info.Volume, sizeBytes: info.SizeBytes, usedBytes: info.OwnBytes,
				origin: origin, created: time.Unix(0, info.CreatedUnixNS)}
		}
	}
	for _, info := range infos {
		if v := byName[info.Volume]; v != nil && info.Snapshot != "" {
			v.usedBytes += info.OwnBytes
			v.snapshots = append(v.snapshots, SnapshotStatus{Name: info.Snapshot, UsedBytes: info.OwnBytes, Created: time.Unix(0, info.CreatedUnixNS)})
		}
	}
	var all []volumeDescription
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all
}

// Close makes everything durable and closes the disks.
func (o *openedLog) Close() error { return o.log.Close() }
