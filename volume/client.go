package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"torpor/host"
	"torpor/wire"
)

// Client talks to the server of a log. It may be used from several goroutines
// at once.
type Client struct{ wire *wire.Client }

// Dial returns a client of the server at a socket, and an error if none answers
// there.
func Dial(ctx context.Context, socketPath string) (*Client, error) {
	c := &Client{wire.NewClient(socketPath)}
	if _, err := c.Status(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("reach volume server at %s: %w", socketPath, err)
	}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.wire.Close() }

// Status says how the log and its volumes are.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.wire.Call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

func (c *Client) post(ctx context.Context, verb string, in, out any) error {
	return c.wire.Call(ctx, http.MethodPost, "/v1/"+verb, in, out)
}

// Create formats the disks of a new log and makes its first volume.
func (c *Client) Create(ctx context.Context, r CreateRequest) error {
	return c.post(ctx, "create", r, nil)
}

// Retry opens what could not be opened before.
func (c *Client) Retry(ctx context.Context) error { return c.post(ctx, "retry", struct{}{}, nil) }

// Attach makes a volume a block device of this host. It may be repeated.
func (c *Client) Attach(ctx context.Context, volume string, holder Holder) (Attachment, error) {
	var a Attachment
	err := c.post(ctx, "attach", VolumeRequest{Volume: volume, Holder: holder}, &a)
	return a, err
}

// Detach takes a holder away; without holders there is no block device.
func (c *Client) Detach(ctx context.Context, volume string, holder Holder) error {
	return c.post(ctx, "detach", VolumeRequest{Volume: volume, Holder: holder}, nil)
}

// Export serves a volume by NBD. It may be repeated.
func (c *Client) Export(ctx context.Context, volume string, e ExportSpec) (ExportStatus, error) {
	var s ExportStatus
	err := c.post(ctx, "export", VolumeRequest{Volume: volume, Export: e}, &s)
	return s, err
}

// Unexport ends the NBD server at an address, or all of a volume for "".
func (c *Client) Unexport(ctx context.Context, volume, listen string) error {
	return c.post(ctx, "unexport", VolumeRequest{Volume: volume, Export: ExportSpec{Listen: listen}}, nil)
}

// Snapshot keeps what a volume holds now.
func (c *Client) Snapshot(ctx context.Context, volume, snapshot string) error {
	return c.post(ctx, "snapshot", VolumeRequest{Volume: volume, Snapshot: snapshot}, nil)
}

// Clone makes a volume of a snapshot.
func (c *Client) Clone(ctx context.Context, volume, snapshot, clone string) error {
	return c.post(ctx, "clone", VolumeRequest{Volume: volume, Snapshot: snapshot, Clone: clone}, nil)
}

// Resize changes a volume's size; force lets what is behind the end go.
func (c *Client) Resize(ctx context.Context, volume string, sizeBytes int64, force bool) error {
	return c.post(ctx, "resize", VolumeRequest{Volume: volume, SizeBytes: sizeBytes, Force: force}, nil)
}

// Remove removes a snapshot, or the volume for "". With the last volume the log
// is removed, and its server ends.
func (c *Client) Remove(ctx context.Context, volume, snapshot string, force bool) error {
	return c.post(ctx, "remove", VolumeRequest{Volume: volume, Snapshot: snapshot, Force: force}, nil)
}

// BeginFormat asks whether a file system may be made on a volume, and notes that
// it is being made. A *host.Refusal says why not.
func (c *Client) BeginFormat(ctx context.Context, volume string, fs host.FileSystem) error {
	return c.post(ctx, "format/begin", VolumeRequest{Volume: volume, FS: fs}, nil)
}

// EndFormat notes that it is made.
func (c *Client) EndFormat(ctx context.Context, volume string) error {
	return c.post(ctx, "format/end", VolumeRequest{Volume: volume}, nil)
}

// AddDisk gives the log another disk.
func (c *Client) AddDisk(ctx context.Context, d DiskSpec) error {
	return c.post(ctx, "disks/add", DiskRequest{Disk: d}, nil)
}

// ReplaceDisk puts a disk in the place of another and tells how far it is filled.
func (c *Client) ReplaceDisk(ctx context.Context, old string, d DiskSpec, tell func(Progress)) error {
	return c.job(ctx, "disks/replace", DiskRequest{Old: old, Disk: d}, nil, tell)
}

// Scrub reads everything and compares it.
func (c *Client) Scrub(ctx context.Context, repair bool, tell func(Progress)) (Report, error) {
	var report Report
	err := c.job(ctx, "scrub", JobRequest{Repair: repair}, &report, tell)
	return report, err
}

// Check compares the log's structures with each other; with data also everything
// else, like a scrub.
func (c *Client) Check(ctx context.Context, data bool, tell func(Progress)) (Report, error) {
	var report Report
	err := c.job(ctx, "check", JobRequest{Data: data}, &report, tell)
	return report, err
}

// job follows a job to its end.
func (c *Client) job(ctx context.Context, verb string, in, result any, tell func(Progress)) error {
	ended := errors.New("reach volume server: it ended before the job did")
	err := c.wire.Lines(ctx, http.MethodPost, "/v1/"+verb, in, func(line []byte) error {
		var p Progress
		if err := json.Unmarshal(line, &p); err != nil {
			return fmt.Errorf("decode progress: %w", err)
		}
		switch {
		case p.Error != "":
			return wire.Restore(p.Error, p.Kind)
		case !p.Done:
			tell(p)
			return nil
		}
		ended = nil
		if result == nil || p.Result == nil {
			return nil
		}
		return json.Unmarshal(p.Result, result)
	})
	if err != nil {
		return err
	}
	return ended
}

// Upgrade lets the server execute another binary in its place. The answer never
// comes, as it is another process's: look at Status.
func (c *Client) Upgrade(ctx context.Context, executable string) error {
	return c.post(ctx, "upgrade", UpgradeRequest{Executable: executable}, nil)
}

// Stop ends the server; exports go.
func (c *Client) Stop(ctx context.Context) error { return c.post(ctx, "stop", struct{}{}, nil) }

// Watch calls f for each event until the context ends or the server goes.
func (c *Client) Watch(ctx context.Context, f func(host.Event)) error {
	return c.wire.Watch(ctx, "/v1/events", f)
}
