package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"torpor/host"
)

// version is the content of a store's version file. It is raised when an older
// Torpor could not read the directory any more.
const version = "torpor image store 1\n"

// Store is a directory with images. See the package comment for concurrency.
type Store struct {
	dir  string
	lock *os.File // holds the lock that keeps other processes out

	damaged []error // set by Open

	mu        sync.Mutex
	index     *index
	images    map[ID]*record
	layers    map[LayerID]layerInfo
	unpacking map[LayerID]chan struct{} // closed when whoever unpacks it is done
	pins      map[LayerID]int           // uses by pulls that go on
}

// Open opens the store in dir, which is made if it does not exist, and removes
// what a killed process left half-made. It is host.ErrInvalid if dir holds
// something else or another version, and host.ErrRefused if another process
// has it open. Close the store.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s := &Store{
		dir:       dir,
		unpacking: map[LayerID]chan struct{}{},
		pins:      map[LayerID]int{},
	}
	if err := s.open(); err != nil {
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("open image store %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.checkVersion(); err != nil {
		return err
	}
	if err := s.lockOut(); err != nil {
		return err
	}
	for _, dir := range []string{s.tmpDir(), s.imagesDir(), s.layersDir(), s.emptyDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	// Devices and set-user-ID programs lie in here.
	if err := os.Chmod(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.clearTmp(); err != nil {
		return err
	}
	if err := s.writeVersion(); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	if len(s.damaged) > 0 {
		return nil
	}
	return s.dropUnused()
}

// Close lets other processes open the store. Pulls must have ended. Mounts and
// holders stay.
func (s *Store) Close() error {
	if err := s.lock.Close(); err != nil {
		return fmt.Errorf("close image store: %w", err)
	}
	return nil
}

// Dir returns the store's directory.
func (s *Store) Dir() string { return s.dir }

func (s *Store) tmpDir() string            { return filepath.Join(s.dir, "tmp") }
func (s *Store) imagesDir() string         { return filepath.Join(s.dir, "images") }
func (s *Store) layersDir() string         { return filepath.Join(s.dir, "layers") }
func (s *Store) emptyDir() string          { return filepath.Join(s.dir, "empty") }
func (s *Store) indexPath() string         { return filepath.Join(s.dir, "index.json") }
func (s *Store) versionPath() string       { return filepath.Join(s.dir, "version") }
func (s *Store) imageDir(id ID) string     { return filepath.Join(s.imagesDir(), id.hex()) }
func (s *Store) layerDir(l LayerID) string { return filepath.Join(s.layersDir(), l.hex()) }

// layerTree is the directory of a layer that overlayfs stacks.
func (s *Store) layerTree(l LayerID) string { return filepath.Join(s.layerDir(l), "fs") }

// checkVersion refuses directories that are not a store of this version. A new
// store is an empty directory, or one whose making was cut short before the
// version file, the first that is written for good.
func (s *Store) checkVersion() error {
	raw, err := os.ReadFile(s.versionPath())
	if err == nil {
		if string(raw) == version {
			return nil
		}
		return fmt.Errorf("version file says %.40q, this torpor knows %q: use the torpor that made it, or another directory: %w", raw, version, host.ErrInvalid)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "lock", "tmp", "images", "layers", "empty":
		default:
			return fmt.Errorf("directory holds %q but no version file, so it is no image store: use another directory: %w", e.Name(), host.ErrInvalid)
		}
	}
	return nil
}

func (s *Store) writeVersion() error {
	_, err := os.Stat(s.versionPath())
	if errors.Is(err, fs.ErrNotExist) {
		return s.writeFile(s.versionPath(), []byte(version))
	}
	return err
}

func (s *Store) lockOut() error {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return fmt.Errorf("another process has it open: %w", host.ErrRefused)
	}
	if err != nil {
		f.Close()
		return err
	}
	s.lock = f
	return nil
}

func (s *Store) clearTmp() error {
	entries, err := os.ReadDir(s.tmpDir())
	if err != nil {
		return err
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(s.tmpDir(), e.Name()))
	}
	return removeAll(paths)
}
