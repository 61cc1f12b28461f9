package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"torpor/container"
	"torpor/container/network"
	"torpor/host"
	"torpor/kernel/mount"
)

// mounts resolves what of the host the container sees.
func (u *unit) mounts(rootfs string) ([]container.BindMount, error) {
	all, err := u.etc()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i, m := range u.record.Spec.Mounts {
		seen[m.Target] = true
		if m.Kind == host.MountTmpfs {
			continue
		}
		source, err := u.source(i, m, rootfs)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		all = append(all, container.BindMount{Source: source, Target: m.Target, ReadOnly: m.ReadOnly, Propagation: m.Propagation})
	}
	for _, target := range u.record.Image.Volumes {
		if seen[target] {
			continue
		}
		source, err := u.volume(u.anonymous(target), target, rootfs, false)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", target, err)
		}
		all = append(all, container.BindMount{Source: source, Target: target})
	}
	return all, nil
}

// etc makes the files by which the container knows itself and others.
func (u *unit) etc() ([]container.BindMount, error) {
	if u.record.Spec.NetworkMode == host.NetworkHost {
		return nil, nil // it sees the host's names
	}
	dir := filepath.Join(u.dir(), "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &u.record.Spec
	if err := network.WriteHosts(filepath.Join(dir, "hosts"), u.hostEntries()); err != nil {
		return nil, err
	}
	if err := network.WriteResolv(filepath.Join(dir, "resolv.conf"), s.DNS, s.DNSSearch, s.DNSOpt); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "hostname"), []byte(u.hostname()+"\n"), 0o644); err != nil {
		return nil, err
	}
	var all []container.BindMount
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		all = append(all, container.BindMount{Source: filepath.Join(dir, name), Target: "/etc/" + name})
	}
	return all, nil
}

// source is the path on the host behind a mount.
func (u *unit) source(i int, m host.MountSpec, rootfs string) (string, error) {
	switch m.Kind {
	case host.MountBind:
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) && m.CreateHostPath {
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return "", err
			}
		}
		return filepath.Join(m.Source, m.Subpath), nil
	case host.MountVolume:
		name := u.record.Volumes[m.Source]
		if m.Source == "" {
			name = u.anonymous(m.Target)
		}
		dir, err := u.volume(name, m.Target, rootfs, m.NoCopy)
		return filepath.Join(dir, m.Subpath), err
	case host.MountFile:
		return u.file(i, m)
	}
	return "", fmt.Errorf("kind %q: %w", m.Kind, host.ErrInvalid)
}

// anonymous names the volume of a path that the file gives no name.
func (u *unit) anonymous(target string) string {
	sum := sha256.Sum256([]byte(target))
	return string(u.id) + "-" + hex.EncodeToString(sum[:6])
}

// volume makes a named volume's directory. A new one gets what the image has
// at its place, as with docker.
func (u *unit) volume(name, target, rootfs string, noCopy bool) (string, error) {
	dir := u.daemon.volumeDir(name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o755)); err != nil {
		return "", err
	}
	from := filepath.Join(rootfs, target)
	if info, err := os.Lstat(from); err == nil && info.IsDir() && !noCopy {
		if out, err := exec.Command("cp", "-a", from+"/.", fresh).CombinedOutput(); err != nil {
			return "", fmt.Errorf("fill volume %s: %w: %s", name, err, out)
		}
	}
	return dir, os.Rename(fresh, dir)
}

func (d *Daemon) volumeDir(name string) string {
	return filepath.Join(d.config.StateDir, "volumes", name)
}

func (u *unit) secretsDir() string {
	return filepath.Join(u.daemon.config.RunDir, "secrets", string(u.id))
}

// file is a secret or config: a file of the host, or content that is kept in
// memory.
func (u *unit) file(i int, m host.MountSpec) (string, error) {
	if m.Source != "" && m.UID == "" && m.GID == "" && m.Mode == 0 {
		return m.Source, nil
	}
	content := m.Content
	if m.Source != "" {
		var err error
		if content, err = os.ReadFile(m.Source); err != nil {
			return "", err
		}
	}
	base := filepath.Join(u.daemon.config.RunDir, "secrets")
	if err := os.MkdirAll(base, 0o711); err != nil {
		return "", err
	}
	if mounted, err := mount.Mounted(base); err != nil || !mounted {
		if err := errors.Join(err, mount.Tmpfs(base, 0, 0o711)); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(u.secretsDir(), 0o711); err != nil {
		return "", err
	}
	path := filepath.Join(u.secretsDir(), strconv.Itoa(i))
	mode := fs.FileMode(0o444)
	if m.Mode != 0 {
		mode = fs.FileMode(m.Mode)
	}
	if err := errors.Join(os.WriteFile(path, content, mode), os.Chmod(path, mode)); err != nil {
		return "", err
	}
	uid, _ := strconv.Atoi(m.UID)
	gid, _ := strconv.Atoi(m.GID)
	return path, os.Chown(path, uid, gid)
}
