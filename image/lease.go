package image

import (
	"errors"
	"fmt"
	"slices"

	"torpor/host"
)

// Use notes that holder, a name of the caller's choice such as a container ID,
// uses the image. The note survives restarts; while it stands the image and
// its layers stay. Noting twice is noting once. It is host.ErrNotFound if the
// image has gone.
func (s *Store) Use(id ID, holder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images[id] == nil {
		return fmt.Errorf("use image %s: %w", id, host.ErrNotFound)
	}
	if slices.Contains(s.index.Holders[holder], id) {
		return nil
	}
	next := s.index.clone()
	next.Holders[holder] = append(next.Holders[holder], id)
	if err := s.saveIndexLocked(next); err != nil {
		return fmt.Errorf("use image %s: %w", id, err)
	}
	return nil
}

// Release ends all uses by holder. An unknown holder is no error. Images that
// have lost their names meanwhile go with their last holder.
func (s *Store) Release(holder string) error {
	rubbish, err := s.release(holder)
	if err := errors.Join(err, removeAll(rubbish)); err != nil {
		return fmt.Errorf("release images of %s: %w", holder, err)
	}
	return nil
}

func (s *Store) release(holder string) (rubbish []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.index.Holders[holder]; !ok {
		return nil, nil
	}
	next := s.index.clone()
	delete(next.Holders, holder)
	if err := s.saveIndexLocked(next); err != nil {
		return nil, err
	}
	return s.takeUnusedLocked()
}

// Holders returns who uses the image, sorted.
func (s *Store) Holders(id ID) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.index.holdersOf(id)
	slices.Sort(out)
	return out
}
