package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"torpor/container"
	"torpor/container/network"
	"torpor/host"
)

// mounts resolves what of the host the container sees.
func (b *builder) mounts(ctx context.Context, r *Record) ([]container.BindMount, error) {
	all, err := b.etc(r)
	if err != nil {
		return nil, err
	}
	for i, m := range r.Spec.Mounts {
		if m.Kind == host.MountTmpfs {
			continue
		}
		source, err := b.source(ctx, r, i, m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		all = append(all, container.BindMount{Source: source, Target: m.Target, ReadOnly: m.ReadOnly, Propagation: m.Propagation})
	}
	for target, name := range anonymousVolumes(r) {
		if name.ofImage {
			source, err := b.volume(ctx, r, host.VolumeSpec{Name: name.volume}, target, false)
			if err != nil {
				return nil, fmt.Errorf("mount %s: %w", target, err)
			}
			all = append(all, container.BindMount{Source: source, Target: target})
		}
	}
	return all, nil
}

// etc makes the files by which the container knows itself and others.
func (b *builder) etc(r *Record) ([]container.BindMount, error) {
	if r.Spec.NetworkMode == host.NetworkHost {
		return nil, nil // it sees the host's names
	}
	dir, s := b.etcDir(r), &r.Spec
	if err := b.WriteHosts(r); err != nil {
		return nil, err
	}
	servers := s.DNS
	if len(servers) == 0 && len(r.Attachments) > 0 {
		servers = network.Nameservers(r.Attachments)
	}
	if err := network.WriteResolv(filepath.Join(dir, "resolv.conf"), servers, s.DNSSearch, s.DNSOpt); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "hostname"), []byte(r.hostname()+"\n"), 0o644); err != nil {
		return nil, err
	}
	var all []container.BindMount
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		all = append(all, container.BindMount{Source: filepath.Join(dir, name), Target: "/etc/" + name})
	}
	return all, nil
}

// machineID gives a service of which there may be several from one checkpoint
// a machine id of the instance's own, if its image has one at all. It stays
// for as long as the container. The root file system is mounted.
func (b *builder) machineID(r *Record) ([]container.BindMount, error) {
	if !r.startsReady() {
		return nil, nil
	}
	root, err := os.OpenRoot(b.rootfs(r))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if info, err := root.Lstat("etc/machine-id"); err != nil || !info.Mode().IsRegular() {
		return nil, nil
	}
	mount := container.BindMount{Source: filepath.Join(b.etcDir(r), "machine-id"), Target: "/etc/machine-id"}
	if _, err := os.Lstat(mount.Source); err == nil {
		return []container.BindMount{mount}, nil
	}
	id := make([]byte, 16)
	rand.Read(id) // never fails
	return []container.BindMount{mount}, os.WriteFile(mount.Source, []byte(hex.EncodeToString(id)+"\n"), 0o444)
}

// source is the path on the host behind a mount.
func (b *builder) source(ctx context.Context, r *Record, i int, m host.MountSpec) (string, error) {
	switch m.Kind {
	case host.MountBind:
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) && m.CreateHostPath {
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return "", err
			}
		}
		return m.Source, nil
	case host.MountVolume:
		spec := r.Volumes[m.Source]
		if m.Source == "" {
			spec = host.VolumeSpec{Name: anonymous(r.ID, m.Target)}
		}
		dir, err := b.volume(ctx, r, spec, m.Target, m.NoCopy)
		if err != nil || m.Subpath == "" {
			return dir, err
		}
		return inside(dir, m.Subpath)
	case host.MountFile:
		return b.secrets.file(r.ID, i, m)
	}
	return "", fmt.Errorf("kind %q: %w", m.Kind, host.ErrInvalid)
}

// inside is a path below a directory that links do not lead out of.
func inside(dir, path string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if _, err := root.Stat(path); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(filepath.Join(dir, path))
}
