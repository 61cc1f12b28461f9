package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"torpor/host"
	"torpor/kernel/mount"
)

// RootFS says where the root file system of a container is made: Upper takes
// what the container writes, Work is overlayfs's own and on the same file
// system, Target is where the result is mounted. All are absolute paths of
// directories, made if they do not exist. A new Upper gets owner and mode of
// the root directory below it, for it is the one seen.
type RootFS struct {
	Upper  string
	Work   string
	Target string
}

// overlaySource is what the mounts are called in /proc/self/mountinfo.
const overlaySource = "torpor"

// Mount mounts layers, lowest first as in Image.Layers, under a writable
// directory. The caller holds the image (Use) while it is mounted. A missing
// layer is host.ErrNotFound.
func (s *Store) Mount(layers []LayerID, m RootFS) error {
	lower, rootOf, err := s.lowerDirs(layers)
	if err != nil {
		return fmt.Errorf("mount root file system at %s: %w", m.Target, err)
	}
	o := mount.Overlay{Source: overlaySource, Lower: lower, Upper: m.Upper, Work: m.Work}
	if err := m.prepare(rootOf); err != nil {
		return fmt.Errorf("mount root file system at %s: %w", m.Target, err)
	}
	if err := o.Mount(m.Target); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	return nil
}

// lowerDirs returns the directories to stack, topmost first, and the one that
// says how the root directory is to look. A layer that occurs twice is used
// where it is topmost: whatever it adds or hides further down it adds or hides
// there, too, and overlayfs refuses to have it twice.
func (s *Store) lowerDirs(layers []LayerID) (lower []string, rootOf string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[LayerID]bool{}
	for _, l := range slices.Backward(layers) {
		info, ok := s.layers[l]
		if !ok {
			return nil, "", fmt.Errorf("layer %s: %w", l, host.ErrNotFound)
		}
		if seen[l] {
			continue
		}
		seen[l] = true
		lower = append(lower, s.layerTree(l))
		if info.RootEntry && rootOf == "" {
			rootOf = s.layerTree(l)
		}
		if info.OpaqueRoot {
			break
		}
	}
	if len(lower) == 0 {
		lower = []string{s.emptyDir()}
	}
	if rootOf == "" {
		rootOf = lower[len(lower)-1]
	}
	if rootOf == s.emptyDir() {
		rootOf = "" // closed, as all of the store
	}
	return lower, rootOf, nil
}

// MountDir mounts a directory of the host as it is under a writable directory.
// Mounts below base do not show. base may be "/", and Upper and Work may be
// below base, but base not below them. What changes in base later shows,
// though not reliably.
//
// hidden are paths of the host that are not to show although they are below
// base, such as Torpor's own state, which holds the memory of other services.
// Those that are not below base, or not there, are left out.
func MountDir(base string, hidden []string, m RootFS) error {
	if err := mountDir(base, hidden, m); err != nil {
		return fmt.Errorf("mount root file system of %s: %w", base, err)
	}
	return nil
}

func mountDir(base string, hidden []string, m RootFS) error {
	info, err := os.Stat(base)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("no directory: %w", host.ErrInvalid)
	}
	if err := m.prepare(base); err != nil {
		return err
	}
	if err := hide(base, m.Upper, hidden); err != nil {
		return err
	}
	o := mount.Overlay{Source: overlaySource, Lower: []string{base}, Upper: m.Upper, Work: m.Work}
	err = o.Mount(m.Target)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("it lies in the writable directory %s: %w: %w", m.Upper, host.ErrInvalid, err)
	}
	return err
}

// Unmount removes the root file system at target and returns only when the
// name is free; if something in it is still used, the kernel drops it later.
// A target that is no mount point, or not there, is no error.
func Unmount(target string) error {
	for {
		mounted, err := mount.Mounted(target)
		if err != nil || !mounted {
			return err
		}
		err = mount.Unmount(target)
		if errors.Is(err, syscall.EBUSY) {
			err = mount.Detach(target)
		}
		if err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
	}
}

// prepare makes the directories; rootOf, if not "", shows how the root
// directory is to look.
func (m RootFS) prepare(rootOf string) error {
	for _, dir := range []string{m.Upper, m.Work, m.Target} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("directory %q: not absolute: %w", dir, host.ErrInvalid)
		}
	}
	for _, dir := range []string{m.Work, m.Target} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return m.prepareUpper(rootOf)
}

func (m RootFS) prepareUpper(rootOf string) error {
	if err := os.MkdirAll(filepath.Dir(m.Upper), 0o700); err != nil {
		return err
	}
	err := os.Mkdir(m.Upper, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	uid, gid, mode := 0, 0, uint32(0o755)
	if rootOf != "" {
		var st syscall.Stat_t
		if err := syscall.Stat(rootOf, &st); err != nil {
			return fmt.Errorf("stat %s: %w", rootOf, err)
		}
		uid, gid, mode = int(st.Uid), int(st.Gid), st.Mode&0o7777
	}
	if err := os.Chown(m.Upper, uid, gid); err != nil {
		return err
	}
	return syscall.Chmod(m.Upper, mode)
}
