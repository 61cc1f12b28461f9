package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"torpor/host"
	"torpor/kernel/mount"
)

// secretStore keeps the content of secrets and configs in memory, in a file
// system of its own below the run directory.
type secretStore struct {
	dir string

	mu sync.Mutex // of mounting and of what is there
}

func (s *secretStore) of(id host.ContainerID) string { return filepath.Join(s.dir, string(id)) }

func (s *secretStore) path(id host.ContainerID, i int) string {
	return filepath.Join(s.of(id), strconv.Itoa(i))
}

// openLocked mounts the file system, which is gone after a restart of the
// machine.
func (s *secretStore) openLocked() error {
	if err := os.MkdirAll(s.dir, 0o711); err != nil {
		return fmt.Errorf("keep secrets: %w", err)
	}
	mounted, err := mount.Mounted(s.dir)
	if err == nil && !mounted {
		err = mount.Tmpfs(s.dir, 0, 0o711)
	}
	if err != nil {
		return fmt.Errorf("keep secrets: %w", err)
	}
	return nil
}

// take moves the content of a spec's secrets out of it, so that it is not
// written to disk with it.
func (s *secretStore) take(id host.ContainerID, spec *host.ServiceSpec) error {
	mounts := append([]host.MountSpec(nil), spec.Mounts...)
	for i := range mounts {
		m := &mounts[i]
		if m.Kind != host.MountFile || m.Source != "" || !m.Secret {
			continue
		}
		if err := s.write(id, i, *m, m.Content); err != nil {
			return fmt.Errorf("keep secret %s: %w", m.Name, err)
		}
		m.Content = nil
	}
	spec.Mounts = mounts
	return nil
}

// file is the file behind a mount of a secret or config.
func (s *secretStore) file(id host.ContainerID, i int, m host.MountSpec) (string, error) {
	path := s.path(id, i)
	switch {
	case m.Source != "" && m.UID == "" && m.GID == "" && m.Mode == 0:
		return m.Source, nil
	case m.Source != "":
		content, err := os.ReadFile(m.Source)
		if err != nil {
			return "", err
		}
		return path, s.write(id, i, m, content)
	case !m.Secret:
		return path, s.write(id, i, m, m.Content)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find secret %s: it is kept in memory only and was lost with it; run torpor up again: %w", m.Name, host.ErrNotFound)
	}
	return path, nil
}

func (s *secretStore) write(id host.ContainerID, i int, m host.MountSpec, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.openLocked(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.of(id), 0o711); err != nil {
		return err
	}
	mode := fs.FileMode(0o444)
	if m.Mode != 0 {
		mode = fs.FileMode(m.Mode & 0o777)
	}
	uid, err := numberOr0(m.UID)
	if err != nil {
		return err
	}
	gid, err := numberOr0(m.GID)
	if err != nil {
		return err
	}
	path := s.path(id, i)
	return errors.Join(os.WriteFile(path, content, 0o600), os.Chown(path, uid, gid), os.Chmod(path, mode))
}

func numberOr0(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("read id %q: not a number: %w", s, host.ErrInvalid)
	}
	return n, nil
}

// remove forgets a container's secrets, and with the last one's the file
// system.
func (s *secretStore) remove(id host.ContainerID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.RemoveAll(s.of(id)); err != nil {
		return fmt.Errorf("forget secrets: %w", err)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		return nil
	}
	if mounted, err := mount.Mounted(s.dir); err != nil || !mounted {
		return err
	}
	return mount.Detach(s.dir)
}

// sweep forgets the secrets of containers that are not known.
func (s *secretStore) sweep(known func(host.ContainerID) bool) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if id := host.ContainerID(e.Name()); !known(id) {
			errs = append(errs, s.remove(id))
		}
	}
	return errors.Join(errs...)
}
