package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"torpor/host"
)

// load reads the index, the layers and the images. A layer or image that can
// not be read is left out and remembered in damaged. Names and holders of
// images that are not there are dropped.
func (s *Store) load() error {
	if err := s.loadIndex(); err != nil {
		return err
	}
	if err := s.loadLayers(); err != nil {
		return err
	}
	if err := s.loadImages(); err != nil {
		return err
	}
	next := s.index.clone()
	changed := false
	for key, to := range next.Refs {
		if s.images[to.Image] == nil {
			delete(next.Refs, key)
			changed = true
		}
	}
	for holder, ids := range next.Holders {
		kept := slices.DeleteFunc(ids, func(id ID) bool { return s.images[id] == nil })
		changed = changed || len(kept) != len(ids)
		next.Holders[holder] = kept
		if len(kept) == 0 {
			delete(next.Holders, holder)
		}
	}
	if !changed {
		return nil
	}
	return s.saveIndexLocked(next)
}

// Damaged returns what Open found but could not use: one error for each layer
// or image, matching host.ErrCorrupt. Such images are not in the store until
// they are pulled or imported again, and while there are any, nothing that
// seems unused is removed by Open.
func (s *Store) Damaged() []error { return slices.Clone(s.damaged) }

func (s *Store) loadIndex() error {
	raw, err := os.ReadFile(s.indexPath())
	if errors.Is(err, fs.ErrNotExist) {
		s.index = newIndex()
		return nil
	}
	if err != nil {
		return err
	}
	s.index, err = parseIndex(raw)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.indexPath(), err)
	}
	return nil
}

// saveIndexLocked writes next and, once it is on disk, makes it the index.
func (s *Store) saveIndexLocked(next *index) error {
	raw, err := next.encode()
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	if err := s.writeFile(s.indexPath(), raw); err != nil {
		return err
	}
	s.index = next
	return nil
}

func (s *Store) loadLayers() error {
	s.layers = map[LayerID]layerInfo{}
	names, err := digestNames(s.layersDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := readLayerInfo(filepath.Join(s.layersDir(), name))
		if err != nil {
			s.damaged = append(s.damaged, fmt.Errorf("read layer %s: %w", name, err))
			continue
		}
		s.layers[LayerID(digestPrefix+name)] = info
	}
	return nil
}

func (s *Store) loadImages() error {
	s.images = map[ID]*record{}
	names, err := digestNames(s.imagesDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		r, err := readRecord(filepath.Join(s.imagesDir(), name), ID(digestPrefix+name))
		for i := 0; err == nil && i < len(r.config.RootFS.DiffIDs); i++ {
			if l := r.config.RootFS.DiffIDs[i]; !s.hasLayer(l) {
				err = fmt.Errorf("layer %s is not there: %w", l, host.ErrCorrupt)
			}
		}
		if err != nil {
			s.damaged = append(s.damaged, fmt.Errorf("read image %s: %w", name, err))
			continue
		}
		s.images[r.id] = r
	}
	return nil
}

func (s *Store) hasLayer(l LayerID) bool {
	_, ok := s.layers[l]
	return ok
}

// digestNames lists a directory in which every name is a digest's digits.
func digestNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := parseDigest(digestPrefix + e.Name()); err != nil {
			return nil, fmt.Errorf("read %s: unknown entry %q: %w", dir, e.Name(), host.ErrCorrupt)
		}
		names = append(names, e.Name())
	}
	return names, nil
}
