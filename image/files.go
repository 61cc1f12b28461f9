package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writeFile replaces path by a file with the given content, whole or not at
// all, by way of the store's tmp directory.
func (s *Store) writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(s.tmpDir(), "file-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return moveIn(f.Name(), path)
}

// moveIn gives something complete and synced its final name and makes the name
// last.
func moveIn(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// replaceDir is moveIn for a directory in whose place a damaged one may lie,
// which is left to be cleared by the next Open.
func (s *Store) replaceDir(from, to string) error {
	err := moveIn(from, to)
	if !errors.Is(err, fs.ErrExist) { // ENOTEMPTY is one, too
		return err
	}
	if _, err := s.moveOut(to); err != nil {
		return err
	}
	return moveIn(from, to)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// moveOut takes something out of its place, into tmp, where it is rubbish.
func (s *Store) moveOut(path string) (rubbish string, err error) {
	rubbish, err = os.MkdirTemp(s.tmpDir(), "removed-")
	if err != nil {
		return "", fmt.Errorf("remove %s: %w", path, err)
	}
	if err := os.Rename(path, filepath.Join(rubbish, filepath.Base(path))); err != nil {
		os.Remove(rubbish)
		return "", fmt.Errorf("remove %s: %w", path, err)
	}
	return rubbish, syncDir(filepath.Dir(path))
}

func removeAll(paths []string) error {
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("remove %s: %w", p, err)
		}
	}
	return nil
}
