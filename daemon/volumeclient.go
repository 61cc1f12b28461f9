package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"torpor/host"
	"torpor/volume"
)

// Volumes lists all volumes that are virtual disks.
func (c *Client) Volumes(ctx context.Context) ([]VolumeInfo, error) {
	var all []VolumeInfo
	err := c.call(ctx, http.MethodGet, "/v1/volumes", nil, &all)
	return all, err
}

// Volume returns one of them. Errors: host.ErrNotFound.
func (c *Client) Volume(ctx context.Context, name string) (VolumeInfo, error) {
	all, err := c.Volumes(ctx)
	if err != nil {
		return VolumeInfo{}, err
	}
	for _, v := range all {
		if v.Name == name {
			return v, nil
		}
	}
	return VolumeInfo{}, fmt.Errorf("find volume %s: %w; torpor volume ls lists what there is", name, host.ErrNotFound)
}

// CreateVolume makes a log with one volume.
func (c *Client) CreateVolume(ctx context.Context, r VolumeCreateRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/volumes/create", r, tell)
}

// AttachVolume makes a volume a block device of this host.
func (c *Client) AttachVolume(ctx context.Context, r volume.VolumeRequest) (volume.Attachment, error) {
	var a volume.Attachment
	err := c.call(ctx, http.MethodPost, "/v1/volumes/attach", r, &a)
	return a, err
}

// ExportVolume serves a volume by NBD.
func (c *Client) ExportVolume(ctx context.Context, r volume.VolumeRequest) (volume.ExportStatus, error) {
	var s volume.ExportStatus
	err := c.call(ctx, http.MethodPost, "/v1/volumes/export", r, &s)
	return s, err
}

// ChangeVolume asks for one of detach, unexport, snapshot, clone, resize and
// remove.
func (c *Client) ChangeVolume(ctx context.Context, verb string, r volume.VolumeRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/volumes/"+verb, r, nil)
}

// AddVolumeDisk gives the log of a volume another disk.
func (c *Client) AddVolumeDisk(ctx context.Context, r VolumeDiskRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/volumes/disk/add", r, tell)
}

// ReplaceVolumeDisk puts a disk in the place of another.
func (c *Client) ReplaceVolumeDisk(ctx context.Context, r VolumeDiskRequest, tell func(Progress)) error {
	return c.progress(ctx, "/v1/volumes/disk/replace", r, tell)
}

// ExamineVolume scrubs or checks the log of a volume and returns what was found.
func (c *Client) ExamineVolume(ctx context.Context, verb string, r VolumeJobRequest, tell func(Progress)) (volume.Report, error) {
	var report volume.Report
	var failed error
	err := c.progress(ctx, "/v1/volumes/"+verb, r, func(p Progress) {
		if p.Result != nil {
			failed = json.Unmarshal(p.Result, &report)
		}
		tell(p)
	})
	if err == nil {
		err = failed
	}
	return report, err
}
