package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"torpor/host"
	"torpor/kernel/mount"
	"torpor/volume"
	"torpor/volume/filesystem"
	"torpor/wire"
)

// VolumeInfo is a volume, with what its log and the daemon know of it.
type VolumeInfo struct {
	volume.VolumeStatus
	Log        volume.Status      `json:"log"` // without its volumes
	MountPoint string             `json:"mount_point,omitempty"`
	UsedBy     []host.ContainerID `json:"used_by,omitempty"`
}

// VolumeCreateRequest makes a log with one volume.
type VolumeCreateRequest struct {
	Name string `json:"name"`
	host.TorporVolume
	DiskBytes int64 `json:"disk_bytes,omitempty"` // of disks in directories; 0: enough for the volume
	Force     bool  `json:"force,omitempty"`      // whatever the disks hold
}

// VolumeDiskRequest adds a disk to the log of a volume, or puts one in another's
// place.
type VolumeDiskRequest struct {
	Volume    string `json:"volume"`
	Disk      string `json:"disk"` // absolute
	Old       string `json:"old,omitempty"`
	DiskBytes int64  `json:"disk_bytes,omitempty"`
}

// VolumeJobRequest names the volume whose log is looked through.
type VolumeJobRequest struct {
	Volume string `json:"volume"`
	volume.JobRequest
}

func (d *Daemon) volumeRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/volumes", func(w http.ResponseWriter, r *http.Request) {
		wire.Answer(w, d.volumeInfos(r.Context()), nil)
	})
	mux.HandleFunc("POST /v1/volumes/create", stream(func(ctx context.Context, r VolumeCreateRequest, tell func(Progress)) error {
		if err := d.volumes.create(ctx, r); err != nil {
			return err
		}
		tell(Progress{Subject: r.Name, What: "created"})
		return nil
	}))
	for verb, f := range map[string]func(context.Context, *volume.Client, volume.VolumeRequest) (any, error){
		"attach": func(ctx context.Context, c *volume.Client, r volume.VolumeRequest) (any, error) {
			return c.Attach(ctx, r.Volume, volume.User)
		},
		"detach": func(ctx context.Context, c *volume.Client, r volume.VolumeRequest) (any, error) {
			return nil, c.Detach(ctx, r.Volume, volume.User)
		},
		"export": func(ctx context.Context, c *volume.Client, r volume.VolumeRequest) (any, error) {
			return c.Export(ctx, r.Volume, r.Export)
		},
		"unexport": func(ctx context.Context, c *volume.Client, r volume.VolumeRequest) (any, error) {
			return nil, c.Unexport(ctx, r.Volume, r.Export.Listen)
		},
		"snapshot": func(ctx context.Context, c *volume.Client, r volume.VolumeRequest) (any, error) {
			return nil, d.volumes.snapshot(ctx, c, r)
		},
		"clone": func(ctx context.Context, c *volume.Client, r volume.VolumeRequest) (any, error) {
			return nil, d.volumes.clone(ctx, c, r)
		},
		"resize": func(ctx context.Context, c *volume.Client, r volume.VolumeRequest) (any, error) {
			return nil, d.volumes.resize(ctx, c, r)
		},
		"remove": func(ctx context.Context, _ *volume.Client, r volume.VolumeRequest) (any, error) {
			return nil, d.removeTorporVolume(ctx, r)
		},
	} {
		mux.HandleFunc("POST /v1/volumes/"+verb, d.onVolume(f))
	}
	mux.HandleFunc("POST /v1/volumes/disk/add", stream(d.addVolumeDisk))
	mux.HandleFunc("POST /v1/volumes/disk/replace", stream(d.replaceVolumeDisk))
	mux.HandleFunc("POST /v1/volumes/scrub", stream(func(ctx context.Context, r VolumeJobRequest, tell func(Progress)) error {
		return d.examine(ctx, r, "scrubbing", tell, func(c *volume.Client, step func(volume.Progress)) (volume.Report, error) {
			return c.Scrub(ctx, r.Repair, step)
		})
	}))
	mux.HandleFunc("POST /v1/volumes/check", stream(func(ctx context.Context, r VolumeJobRequest, tell func(Progress)) error {
		return d.examine(ctx, r, "checking", tell, func(c *volume.Client, step func(volume.Progress)) (volume.Report, error) {
			return c.Check(ctx, r.Data, step)
		})
	}))
}

// onVolume asks the server of the volume that the request names.
func (d *Daemon) onVolume(f func(context.Context, *volume.Client, volume.VolumeRequest) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request volume.VolumeRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			wire.Answer(w, nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid))
			return
		}
		client, _, err := d.volumes.of(r.Context(), request.Volume)
		if err != nil {
			wire.Answer(w, nil, err)
			return
		}
		result, err := f(r.Context(), client, request)
		wire.Answer(w, result, err)
	}
}

// volumeInfos lists all volumes, by name.
func (d *Daemon) volumeInfos(ctx context.Context) []VolumeInfo {
	users := d.volumeUsers()
	infos := []VolumeInfo{}
	for _, status := range d.volumes.statuses(ctx) {
		volumes := status.Volumes
		status.Volumes = nil
		for _, v := range volumes {
			info := VolumeInfo{VolumeStatus: v, Log: status, UsedBy: users[v.Name]}
			dir := volume.MountPoint(d.config.StateDir, status.ID, v.Name)
			if source, err := mount.Source(dir); err == nil && source != "" {
				info.MountPoint = dir
				if v.Device != "" && source != v.Device && info.Problem == "" {
					info.Problem = "the server of its log ended while it was mounted; what services wrote since is lost: restart those that use it"
				}
			}
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b VolumeInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// volumeUsers are the containers that each volume is for, by its name.
func (d *Daemon) volumeUsers() map[string][]host.ContainerID {
	users := map[string][]host.ContainerID{}
	for _, u := range d.all() {
		seen := map[string]bool{}
		for _, v := range u.seen().Volumes {
			if !seen[v.Name] {
				seen[v.Name] = true
				users[v.Name] = append(users[v.Name], u.id)
			}
		}
	}
	return users
}

// create makes a log, its server and its first volume.
func (v *volumeServers) create(ctx context.Context, r VolumeCreateRequest) error {
	v.naming.Lock()
	defer v.naming.Unlock()
	if err := v.nameIsFree(r.Name); err != nil {
		return err
	}
	state := &volume.State{ID: volume.NewLogID(), Phase: volume.New, Layout: r.Layout}
	if len(r.Disks) == 0 {
		r.Disks = []string{volume.LogDir(v.config.StateDir, state.ID)}
	}
	if len(r.Disks) < r.Layout.Disks() {
		return fmt.Errorf("create volume %s: layout %s needs %d disks, %d are given: %w", r.Name, r.Layout, r.Layout.Disks(), len(r.Disks), host.ErrInvalid)
	}
	if err := os.MkdirAll(volume.LogDir(v.config.StateDir, state.ID), 0o711); err != nil {
		return fmt.Errorf("create volume %s: %w", r.Name, err)
	}
	size := r.DiskBytes
	if size == 0 {
		size = volume.DiskBytesFor(r.SizeBytes, r.Layout, len(r.Disks))
	}
	var err error
	if state.Disks, err = volume.PlanDisks(r.Disks, r.Name, size); err == nil {
		err = state.Save(v.config.StateDir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create volume %s: %w", r.Name, err), v.config.discard(volume.LogDir(v.config.StateDir, state.ID)))
	}
	client, err := v.client(ctx, state.ID)
	if err == nil {
		err = client.Create(ctx, volume.CreateRequest{Volume: r.Name, SizeBytes: r.SizeBytes, FS: r.FS, Force: r.Force})
	}
	if err != nil {
		return errors.Join(err, v.discard(context.WithoutCancel(ctx), state.ID))
	}
	return nil
}

// nameIsFree checks that no volume of either kind has a name.
func (v *volumeServers) nameIsFree(name string) error {
	if err := volume.CheckName(name); err != nil {
		return err
	}
	if _, err := os.Lstat(volumeDir(v.config.StateDir, name)); err == nil {
		return fmt.Errorf("create volume %s: there is a local volume of that name: %w", name, host.ErrExists)
	}
	_, err := v.locate(name)
	if err == nil {
		return fmt.Errorf("create volume %s: %w", name, host.ErrExists)
	}
	if !errors.Is(err, host.ErrNotFound) {
		return err
	}
	return nil
}

// snapshot keeps what a volume holds. What is mounted is written out first.
func (v *volumeServers) snapshot(ctx context.Context, client *volume.Client, r volume.VolumeRequest) error {
	id, err := v.locate(r.Volume)
	if err != nil {
		return err
	}
	dir := volume.MountPoint(v.config.StateDir, id, r.Volume)
	if source, err := mount.Source(dir); err == nil && source != "" {
		if err := mount.Sync(dir); err != nil {
			return fmt.Errorf("snapshot volume %s: %w", r.Volume, err)
		}
	}
	return client.Snapshot(ctx, r.Volume, r.Snapshot)
}

func (v *volumeServers) clone(ctx context.Context, client *volume.Client, r volume.VolumeRequest) error {
	v.naming.Lock()
	defer v.naming.Unlock()
	if err := v.nameIsFree(r.Clone); err != nil {
		return err
	}
	return client.Clone(ctx, r.Volume, r.Snapshot, r.Clone)
}

// resize changes the size of a volume and of the file system that is mounted for
// services.
func (v *volumeServers) resize(ctx context.Context, client *volume.Client, r volume.VolumeRequest) error {
	if err := client.Resize(ctx, r.Volume, r.SizeBytes, r.Force); err != nil {
		return err
	}
	lock := v.mounting(r.Volume)
	lock.Lock()
	defer lock.Unlock()
	id, err := v.locate(r.Volume)
	if err != nil {
		return err
	}
	dir := volume.MountPoint(v.config.StateDir, id, r.Volume)
	source, err := mount.Source(dir)
	if err != nil || source == "" {
		return err
	}
	fs, err := filesystem.Detect(source)
	if err != nil {
		return err
	}
	return filesystem.Grow(ctx, fs, source, dir)
}

// removeTorporVolume removes a volume or a snapshot of it, unless containers are
// made with it.
func (d *Daemon) removeTorporVolume(ctx context.Context, r volume.VolumeRequest) error {
	if users := d.volumeUsers()[r.Volume]; r.Snapshot == "" && len(users) > 0 {
		return &host.Refusal{Reasons: []string{fmt.Sprintf("volume %s is used by %s; torpor down its project first", r.Volume, join(users))}}
	}
	return d.volumes.remove(ctx, r)
}

func join[S ~string](all []S) string {
	var texts []string
	for _, s := range all {
		texts = append(texts, string(s))
	}
	return strings.Join(texts, ", ")
}

func (d *Daemon) addVolumeDisk(ctx context.Context, r VolumeDiskRequest, tell func(Progress)) error {
	client, spec, err := d.planDisk(ctx, r)
	if err != nil {
		return err
	}
	if err := client.AddDisk(ctx, spec); err != nil {
		return err
	}
	tell(Progress{Subject: r.Volume, What: "has disk", Detail: r.Disk})
	return nil
}

func (d *Daemon) replaceVolumeDisk(ctx context.Context, r VolumeDiskRequest, tell func(Progress)) error {
	client, spec, err := d.planDisk(ctx, r)
	if err != nil {
		return err
	}
	if err := client.ReplaceDisk(ctx, r.Old, spec, TellJob(r.Volume, "filling "+r.Disk, tell)); err != nil {
		return err
	}
	tell(Progress{Subject: r.Volume, What: "has disk", Detail: r.Disk + " instead of " + r.Old})
	return nil
}

// planDisk looks at a disk for the log of a volume. In a directory it gets the
// size of the others.
func (d *Daemon) planDisk(ctx context.Context, r VolumeDiskRequest) (*volume.Client, volume.DiskSpec, error) {
	client, id, err := d.volumes.of(ctx, r.Volume)
	if err != nil {
		return nil, volume.DiskSpec{}, err
	}
	state, err := volume.LoadState(d.config.StateDir, id)
	if err != nil {
		return nil, volume.DiskSpec{}, err
	}
	size := r.DiskBytes
	for _, disk := range state.Disks {
		if r.DiskBytes == 0 {
			size = max(size, disk.SizeBytes)
		}
	}
	if info, err := os.Stat(r.Disk); size == 0 && err == nil && info.IsDir() {
		return nil, volume.DiskSpec{}, fmt.Errorf("use disk %s: the others are no directories; say how large it is to be (--disk-size): %w", r.Disk, host.ErrInvalid)
	}
	specs, err := volume.PlanDisks([]string{r.Disk}, string(id), size)
	if err != nil {
		return nil, volume.DiskSpec{}, err
	}
	return client, specs[0], nil
}

// examine runs a job that only reads, or repairs, and tells what it found.
func (d *Daemon) examine(ctx context.Context, r VolumeJobRequest, what string, tell func(Progress), f func(*volume.Client, func(volume.Progress)) (volume.Report, error)) error {
	client, _, err := d.volumes.of(ctx, r.Volume)
	if err != nil {
		return err
	}
	report, err := f(client, TellJob(r.Volume, what, tell))
	if err != nil {
		return err
	}
	result, err := json.Marshal(report)
	tell(Progress{Subject: r.Volume, What: report.Summary(), Result: result})
	return err
}

// TellJob turns a job's progress into that of a request.
func TellJob(subject, what string, tell func(Progress)) func(volume.Progress) {
	return func(p volume.Progress) {
		tell(Progress{Subject: subject, What: what, DoneBytes: p.DoneBytes, TotalBytes: p.TotalBytes,
			Detail: fmt.Sprintf("%s of %s", units.BytesSize(float64(p.DoneBytes)), units.BytesSize(float64(p.TotalBytes)))})
	}
}
