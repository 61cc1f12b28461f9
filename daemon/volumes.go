package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"torpor/host"
	"torpor/volume"
)

// anonymous names the volume of a path that the file gives no name.
func anonymous(id host.ContainerID, target string) string {
	sum := sha256.Sum256([]byte(target))
	return string(id) + "-" + hex.EncodeToString(sum[:6])
}

type anonymousVolume struct {
	volume  string
	ofImage bool // not of the service's own mounts
}

// anonymousVolumes are a container's volumes that no file names, by target.
func anonymousVolumes(r *Record) map[string]anonymousVolume {
	all := map[string]anonymousVolume{}
	for _, target := range r.Image.Volumes {
		if !slices.ContainsFunc(r.Spec.Mounts, func(m host.MountSpec) bool { return filepath.Clean(m.Target) == filepath.Clean(target) }) {
			all[target] = anonymousVolume{anonymous(r.ID, target), true}
		}
	}
	for _, m := range r.Spec.Mounts {
		if m.Kind == host.MountVolume && m.Source == "" {
			all[m.Target] = anonymousVolume{anonymous(r.ID, m.Target), false}
		}
	}
	return all
}

// ownVolumes are the volumes that go with the project when it is asked for:
// not those that exist outside of it.
func (r Record) ownVolumes() []string {
	var names []string
	for _, v := range r.Volumes {
		if !v.External {
			names = append(names, v.Name)
		}
	}
	for _, v := range anonymousVolumes(&r) {
		names = append(names, v.volume)
	}
	return names
}

// volumeDir is the directory of a local volume.
func volumeDir(stateDir, name string) string { return filepath.Join(stateDir, "volumes", name) }

// volume makes a volume's directory. A new one gets what the image has at its
// place, as with docker.
func (b *builder) volume(ctx context.Context, r *Record, v host.VolumeSpec, target string, noCopy bool) (string, error) {
	if !filepath.IsLocal(v.Name) || strings.Contains(v.Name, "/") {
		return "", fmt.Errorf("make volume %q: not a name: %w", v.Name, host.ErrInvalid)
	}
	if virtual, err := b.volumes.virtual(v); err != nil {
		return "", err
	} else if virtual {
		return b.volumes.mounted(ctx, v, func(dir string) error {
			if noCopy {
				return nil
			}
			return copyInside(b.rootfs(r), target, dir)
		})
	}
	if device, ok, err := bound(v); ok || err != nil {
		return device, err
	}
	dir := volumeDir(b.config.StateDir, v.Name)
	switch _, err := os.Stat(dir); {
	case err == nil:
		return dir, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	case v.External:
		return "", fmt.Errorf("use volume %s: it is external and does not exist (mkdir %s): %w", v.Name, dir, host.ErrNotFound)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return "", fmt.Errorf("make volume %s: %w", v.Name, err)
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	if !noCopy {
		if err := copyInside(b.rootfs(r), target, fresh); err != nil {
			return "", errors.Join(fmt.Errorf("fill volume %s: %w", v.Name, err), os.RemoveAll(fresh))
		}
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, stat := os.Stat(dir); stat == nil { // another container was first
			return dir, os.RemoveAll(fresh)
		}
		return "", fmt.Errorf("make volume %s: %w", v.Name, err)
	}
	return dir, nil
}

// bound is the host's directory behind a volume that is a bind mount by its
// driver's options.
func bound(v host.VolumeSpec) (string, bool, error) {
	if len(v.DriverOpts) == 0 {
		return "", false, nil
	}
	device, kind := v.DriverOpts["device"], v.DriverOpts["type"]
	options := strings.Split(v.DriverOpts["o"], ",")
	if (kind == "none" || kind == "") && filepath.IsAbs(device) && (slices.Contains(options, "bind") || slices.Contains(options, "rbind")) {
		if _, err := os.Stat(device); err != nil {
			return "", false, fmt.Errorf("use volume %s: %w", v.Name, err)
		}
		return device, true, nil
	}
	return "", false, fmt.Errorf("make volume %s: driver_opts other than those of a bind mount: %w", v.Name, host.ErrUnsupported)
}

// copyInside copies a directory of a root file system. Links of the image can
// not lead out of it. Nothing there is nothing to copy.
func copyInside(rootfs, path, to string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	name := strings.TrimPrefix(filepath.Clean(path), "/")
	if name == "" {
		return nil
	}
	from, err := root.Open(name)
	if err != nil {
		return nil
	}
	defer from.Close()
	if info, err := from.Stat(); err != nil || !info.IsDir() {
		return err
	}
	cp := exec.Command("cp", "-a", "/proc/self/fd/3/.", to)
	cp.ExtraFiles = []*os.File{from}
	if out, err := cp.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ReleaseVolume implements supplies.
func (b *builder) ReleaseVolume(name string) error {
	return b.volumes.release(context.Background(), name)
}

// RemoveVolume implements supplies.
func (b *builder) RemoveVolume(name string) error {
	if !filepath.IsLocal(name) || strings.Contains(name, "/") {
		return fmt.Errorf("remove volume %q: not a name: %w", name, host.ErrInvalid)
	}
	dir := volumeDir(b.config.StateDir, name)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		err := b.volumes.remove(context.Background(), volume.VolumeRequest{Volume: name})
		if errors.Is(err, host.ErrNotFound) {
			return nil
		}
		return err
	}
	if err := b.config.discard(dir); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}
