package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"torpor/host"
)

// Remove takes a name away from its image, or all of them if ref is an ID (as
// for Resolve). An image stays while it has a name or a holder, so with its
// last name it goes, and so do the layers that no other image has.
//
// Taking the last name of an image that is used is host.ErrRefused, and so is
// an ID with several names; with force it is done, and an image that is used
// goes when its last holder releases it. An unknown ref is host.ErrNotFound.
func (s *Store) Remove(ref string, force bool) error {
	s.mu.Lock()
	rubbish, err := s.removeLocked(ref, force)
	s.mu.Unlock()
	return errors.Join(err, removeAll(rubbish))
}

func (s *Store) removeLocked(ref string, force bool) (rubbish []string, err error) {
	r, key, err := s.findLocked(ref)
	if err != nil {
		return nil, err
	}
	var keys []string
	for k, to := range s.index.Refs {
		if to.Image == r.id && (key == "" || k == key) {
			keys = append(keys, k)
		}
	}
	if key == "" && len(keys) > 1 && !force {
		return nil, fmt.Errorf("remove image %s: it has the names %s; name one, or force: %w",
			ref, strings.Join(s.imageLocked(r).Refs, ", "), host.ErrRefused)
	}
	holders := s.index.holdersOf(r.id)
	if len(keys) == s.countRefsLocked(r.id) && len(holders) > 0 && !force {
		slices.Sort(holders)
		return nil, fmt.Errorf("remove image %s: used by %s: %w", ref, strings.Join(holders, ", "), host.ErrRefused)
	}
	next := s.index.clone()
	for _, k := range keys {
		delete(next.Refs, k)
	}
	if err := s.saveIndexLocked(next); err != nil {
		return nil, fmt.Errorf("remove image %s: %w", ref, err)
	}
	return s.takeUnusedLocked()
}

func (s *Store) countRefsLocked(id ID) int {
	n := 0
	for _, to := range s.index.Refs {
		if to.Image == id {
			n++
		}
	}
	return n
}

// dropUnused removes what nothing keeps, such as the layers of a pull that was
// cut short.
func (s *Store) dropUnused() error {
	s.mu.Lock()
	rubbish, err := s.takeUnusedLocked()
	s.mu.Unlock()
	return errors.Join(err, removeAll(rubbish))
}

// takeUnusedLocked takes the images without name and holder, and the layers
// that no image and no pull uses, out of the store. It returns where they now
// lie, to be removed without the lock.
func (s *Store) takeUnusedLocked() (rubbish []string, err error) {
	kept := map[ID]bool{}
	for _, to := range s.index.Refs {
		kept[to.Image] = true
	}
	for _, ids := range s.index.Holders {
		for _, id := range ids {
			kept[id] = true
		}
	}
	used := map[LayerID]bool{}
	for id, r := range s.images {
		if kept[id] {
			for _, l := range r.config.RootFS.DiffIDs {
				used[l] = true
			}
			continue
		}
		path, err := s.moveOut(s.imageDir(id))
		if err != nil {
			return rubbish, err
		}
		delete(s.images, id)
		rubbish = append(rubbish, path)
	}
	for l := range s.layers {
		if used[l] || s.pins[l] > 0 {
			continue
		}
		path, err := s.moveOut(s.layerDir(l))
		if err != nil {
			return rubbish, err
		}
		delete(s.layers, l)
		rubbish = append(rubbish, path)
	}
	return rubbish, nil
}
