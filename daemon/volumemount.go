package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"torpor/host"
	"torpor/kernel/mount"
	"torpor/volume"
	"torpor/volume/filesystem"
)

// virtual says whether a volume is a virtual disk: it says so, or it is external
// and there is one.
func (v *volumeServers) virtual(spec host.VolumeSpec) (bool, error) {
	_, err := os.Lstat(volumeDir(v.config.StateDir, spec.Name))
	local := err == nil
	if spec.Torpor != nil {
		if local {
			return false, fmt.Errorf("use volume %s with driver torpor: there is a local volume of that name: %w", spec.Name, host.ErrExists)
		}
		return true, nil
	}
	if local {
		return false, nil
	}
	_, err = v.locate(spec.Name)
	switch {
	case err == nil && !spec.External:
		return false, fmt.Errorf("use volume %s: it is a virtual disk; say driver: torpor, or external: true: %w", spec.Name, host.ErrExists)
	case err == nil:
		return true, nil
	case errors.Is(err, host.ErrNotFound) || !spec.External:
		return false, nil
	}
	return false, err
}

// mounted makes a volume's file system available and returns its directory. What
// is missing on the way is made: the volume, unless it is external; its block
// device; its file system, once, on a volume that nobody else has had; the
// mount. fill is called for a new file system.
func (v *volumeServers) mounted(ctx context.Context, spec host.VolumeSpec, fill func(dir string) error) (string, error) {
	lock := v.mounting(spec.Name)
	lock.Lock()
	defer lock.Unlock()
	client, id, err := v.of(ctx, spec.Name)
	if errors.Is(err, host.ErrNotFound) && spec.Torpor != nil && !spec.External {
		err = v.create(ctx, VolumeCreateRequest{Name: spec.Name, TorporVolume: *spec.Torpor})
		if err == nil {
			client, id, err = v.of(ctx, spec.Name)
		}
	}
	if err != nil {
		return "", err
	}
	attached, err := client.Attach(ctx, spec.Name, volume.Services)
	if err != nil {
		// It may be one that could not be opened at first.
		if retried := client.Retry(ctx); retried != nil {
			return "", errors.Join(err, retried)
		}
		if attached, err = client.Attach(ctx, spec.Name, volume.Services); err != nil {
			return "", err
		}
	}
	dir := volume.MountPoint(v.config.StateDir, id, spec.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("mount volume %s: %w", spec.Name, err)
	}
	if there, err := v.stands(dir, attached.Device); there || err != nil {
		return dir, err
	}
	if attached.Format == volume.Unformatted || attached.Format == volume.Formatting {
		return dir, v.format(ctx, client, spec, attached, dir, fill)
	}
	return dir, v.mount(ctx, spec.Name, attached.Device, dir)
}

// stands says whether a device is mounted at dir. Another one there belongs to a
// server that has ended: nothing can be read or written through it any more.
func (v *volumeServers) stands(dir, device string) (bool, error) {
	for {
		source, err := mount.Source(dir)
		if err != nil || source == "" || source == device {
			return source == device, err
		}
		if err := mount.Detach(dir); err != nil {
			return false, err
		}
	}
}

// mount checks the file system on a device and mounts it.
func (v *volumeServers) mount(ctx context.Context, name, device, dir string) error {
	fs, err := filesystem.Detect(device)
	if err != nil {
		return err
	}
	if fs == "" {
		return fmt.Errorf("mount volume %s: no file system that is known is on it; make one (mkfs.ext4 $(torpor volume attach %s)): %w", name, name, host.ErrInvalid)
	}
	if err := filesystem.Check(ctx, fs, device); err != nil {
		return fmt.Errorf("mount volume %s: %w", name, err)
	}
	if err := mount.Device(string(fs), device, dir, filesystem.Options(fs)); err != nil {
		return fmt.Errorf("mount volume %s: %w", name, err)
	}
	return nil
}

// format makes the file system of a new volume, mounts it and has it filled.
// Until all of that is done the volume is one that may be formatted again.
func (v *volumeServers) format(ctx context.Context, client *volume.Client, spec host.VolumeSpec, at volume.Attachment, dir string, fill func(string) error) (err error) {
	fs := at.FS
	if fs == "" && spec.Torpor != nil {
		fs = spec.Torpor.FS
	}
	if fs == "" {
		fs = host.DefaultFileSystem
	}
	if err := client.BeginFormat(ctx, spec.Name, fs); err != nil {
		return err
	}
	if err := filesystem.Make(ctx, fs, at.Device); err != nil {
		return fmt.Errorf("format volume %s: %w", spec.Name, err)
	}
	if err := v.mount(ctx, spec.Name, at.Device, dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, mount.Unmount(dir))
		}
	}()
	// Databases want an empty directory. It is made again when it is needed.
	if err := os.RemoveAll(filepath.Join(dir, "lost+found")); err != nil {
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	if err := mount.Sync(dir); err != nil {
		return err
	}
	return client.EndFormat(ctx, spec.Name)
}

// release unmounts a volume and lets go of its block device. One that is not
// there needs no releasing.
func (v *volumeServers) release(ctx context.Context, name string) error {
	lock := v.mounting(name)
	lock.Lock()
	defer lock.Unlock()
	id, err := v.locate(name)
	if errors.Is(err, host.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := volume.MountPoint(v.config.StateDir, id, name)
	for {
		source, err := mount.Source(dir)
		if err != nil {
			return err
		}
		if source == "" {
			break
		}
		if err := mount.Unmount(dir); err != nil {
			return fmt.Errorf("unmount volume %s: %w", name, err)
		}
	}
	client, err := v.client(ctx, id)
	if err != nil {
		return err
	}
	return client.Detach(ctx, name, volume.Services)
}

// remove removes a volume or a snapshot of one. With its last volume a log goes.
func (v *volumeServers) remove(ctx context.Context, r volume.VolumeRequest) error {
	if r.Snapshot == "" {
		if err := v.release(ctx, r.Volume); err != nil {
			return err
		}
	}
	client, id, err := v.of(ctx, r.Volume)
	if err != nil {
		return err
	}
	if err := client.Remove(ctx, r.Volume, r.Snapshot, r.Force); err != nil {
		return err
	}
	if r.Snapshot == "" {
		_ = os.Remove(volume.MountPoint(v.config.StateDir, id, r.Volume)) // empty
	}
	state, err := volume.LoadState(v.config.StateDir, id)
	if errors.Is(err, host.ErrNotFound) {
		return nil // who follows its server was faster
	}
	if err != nil || state.Phase != volume.Removed {
		return err
	}
	return v.discard(context.WithoutCancel(ctx), id)
}
