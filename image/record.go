package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"torpor/host"
)

// record is an image as it lies in the store: its config, byte for byte as the
// ID digests it, and its manifest if it came with one.
type record struct {
	id       ID
	config   *configFile
	manifest string // digest
}

// readRecord reads the directory of an image and checks it against its ID.
func readRecord(dir string, id ID) (*record, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "config"))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	if got := digestOf(sum[:]); got != string(id) {
		return nil, fmt.Errorf("its config has digest %s: %w", got, host.ErrCorrupt)
	}
	config, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	r := &record{id: id, config: config}
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	sum = sha256.Sum256(manifest)
	r.manifest = digestOf(sum[:])
	return r, nil
}

// addRecord makes the directory of an image whose layers are all there. One
// that is there already stays as it is.
func (s *Store) addRecord(c *candidate) error {
	dir, err := os.MkdirTemp(s.tmpDir(), "image-")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer os.RemoveAll(dir) // gone after the rename
	if err := writeSynced(filepath.Join(dir, "config"), c.config); err != nil {
		return err
	}
	if c.manifest != nil {
		if err := writeSynced(filepath.Join(dir, "manifest"), c.manifest); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	r, err := readRecord(dir, c.id)
	if err != nil {
		return fmt.Errorf("write image %s: %w", c.id, err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images[c.id] == nil {
		if err := s.replaceDir(dir, s.imageDir(c.id)); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
		s.images[c.id] = r
	}
	next := s.index.clone()
	for _, key := range c.refs {
		next.Refs[key] = refTo{Image: c.id, Digest: c.digest, Time: time.Now().UTC()}
	}
	return s.saveIndexLocked(next)
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	_, err = bytes.NewReader(content).WriteTo(f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

// imageLocked describes a record.
func (s *Store) imageLocked(r *record) Image {
	run, err := r.config.run()
	if err != nil {
		panic("image config was checked when it was read: " + err.Error())
	}
	img := Image{
		ID: r.id, Refs: []string{}, Digest: r.manifest, Platform: r.config.platform().String(),
		Config: run, Layers: slices.Clone(r.config.RootFS.DiffIDs),
	}
	if r.config.Created != nil {
		img.Created = *r.config.Created
	}
	counted := map[LayerID]bool{}
	for _, l := range img.Layers {
		if !counted[l] {
			counted[l] = true
			img.SizeBytes += s.layers[l].Bytes
		}
	}
	for key, to := range s.index.Refs {
		if to.Image == r.id {
			img.Refs = append(img.Refs, shortRef(key))
		}
	}
	slices.Sort(img.Refs)
	return img
}
