package image

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"torpor/host"
)

// minIDDigits is the shortest beginning of an ID that may stand for it.
const minIDDigits = 4

// List returns all images, newest first. One without names lost them to another
// image and goes with its last holder.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Image, 0, len(s.images))
	for _, r := range s.images {
		out = append(out, s.imageLocked(r))
	}
	slices.SortFunc(out, func(a, b Image) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Resolve returns the image that ref stands for: a name ("redis",
// "host:port/path:tag", "name@sha256:..."), an ID, or a beginning of an ID's
// digits that only one image has. It is host.ErrNotFound if there is none.
func (s *Store) Resolve(ref string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _, err := s.findLocked(ref)
	if err != nil {
		return Image{}, err
	}
	return s.imageLocked(r), nil
}

// findLocked returns the image and, if ref is a name, its key in the index.
func (s *Store) findLocked(ref string) (r *record, key string, err error) {
	if r := s.images[ID(ref)]; r != nil {
		return r, "", nil
	}
	parsed, nameErr := parseRef(ref)
	if nameErr == nil {
		key := refKey(parsed)
		if to, ok := s.index.Refs[key]; ok {
			return s.images[to.Image], key, nil
		}
	}
	digits := strings.TrimPrefix(ref, digestPrefix)
	if len(digits) >= minIDDigits && isHex(digits) {
		for id, candidate := range s.images {
			if !strings.HasPrefix(id.hex(), digits) {
				continue
			}
			if r != nil {
				return nil, "", fmt.Errorf("find image %s: several IDs begin so: %w", ref, host.ErrInvalid)
			}
			r = candidate
		}
	}
	if r != nil {
		return r, "", nil
	}
	if nameErr != nil && (digits == "" || !isHex(digits)) {
		return nil, "", nameErr
	}
	return nil, "", fmt.Errorf("find image %s: %w", ref, host.ErrNotFound)
}

// Inspection is all there is to say of an image.
type Inspection struct {
	Image
	Sources    map[string]string `json:"sources"` // by name, the digest that the registry gave for it
	Holders    []string          `json:"holders"` // who uses it; sorted
	Dir        string            `json:"dir"`     // where its config and manifest lie
	LayerBytes map[LayerID]int64 `json:"layer_bytes"`
}

// Inspect describes one image; ref is as for Resolve.
func (s *Store) Inspect(ref string) (Inspection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _, err := s.findLocked(ref)
	if err != nil {
		return Inspection{}, err
	}
	out := Inspection{
		Image: s.imageLocked(r), Sources: map[string]string{}, Holders: s.index.holdersOf(r.id),
		Dir: s.imageDir(r.id), LayerBytes: map[LayerID]int64{},
	}
	slices.Sort(out.Holders)
	for key, to := range s.index.Refs {
		if to.Image == r.id {
			out.Sources[shortRef(key)] = to.Digest
		}
	}
	for _, l := range out.Layers {
		out.LayerBytes[l] = s.layers[l].Bytes
	}
	return out, nil
}
