package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"torpor/host"
	"torpor/kernel/mount"
)

// parallelLayers is how many layers of an image are fetched and unpacked at a
// time: enough to hide the registry's latency, few enough for a small host.
const parallelLayers = 3

// candidate is an image that has been found, in a registry or a file, and is
// not yet in the store.
type candidate struct {
	id       ID
	refs     []string // keys of the index
	digest   string   // what its source calls it; "" if nothing
	manifest []byte   // nil if it has none
	config   []byte
	layers   []layerSource // lowest first
}

// layerSource is where a layer comes from.
type layerSource struct {
	id   LayerID
	blob v1.Descriptor // no Digest: only the unpacked content is checked; Size -1: not known
	open func(context.Context) (io.ReadCloser, error)
}

// label names the layer in errors and reports.
func (l layerSource) label() string {
	if l.blob.Digest != (v1.Hash{}) {
		return l.blob.Digest.String()
	}
	return string(l.id)
}

// newCandidate checks that config and layers fit together and fills in their
// names. sources holds what to do for each layer, lowest first.
func newCandidate(config, manifest []byte, want Platform, sources []layerSource) (*candidate, error) {
	c := &candidate{config: config, manifest: manifest, layers: sources, id: ID(sha256Of(config))}
	parsed, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	if err := want.check(parsed.platform()); err != nil {
		return nil, err
	}
	if len(parsed.RootFS.DiffIDs) != len(sources) {
		return nil, fmt.Errorf("image has %d layers but its config speaks of %d: %w", len(sources), len(parsed.RootFS.DiffIDs), host.ErrInvalid)
	}
	distinct := map[LayerID]bool{}
	for i, id := range parsed.RootFS.DiffIDs {
		sources[i].id = id
		distinct[id] = true
	}
	if len(distinct) > mount.MaxLower-1 {
		return nil, fmt.Errorf("image has %d layers, at most %d can be stacked: %w", len(distinct), mount.MaxLower-1, host.ErrUnsupported)
	}
	return c, nil
}

// install brings the candidate's missing layers into the store and then the
// image under its names. If that fails, nothing that was not there before
// stays.
func (s *Store) install(ctx context.Context, c *candidate, r *reporter) (Image, error) {
	s.pin(c, 1)
	defer s.pin(c, -1)
	if err := s.addLayers(ctx, c, r); err != nil {
		return Image{}, err
	}
	if err := s.addRecord(c); err != nil {
		return Image{}, err
	}
	r.report(Progress{Phase: PhaseDone})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images[c.id] == nil {
		return Image{}, fmt.Errorf("image %s was removed meanwhile: %w", c.id, host.ErrNotFound)
	}
	return s.imageLocked(s.images[c.id]), nil
}

func (s *Store) addLayers(ctx context.Context, c *candidate, r *reporter) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLayers)
	seen := map[LayerID]bool{}
	var distinct []layerSource
	for _, l := range c.layers {
		if !seen[l.id] {
			seen[l.id] = true
			distinct = append(distinct, l)
		}
	}
	r.start(len(distinct))
	for _, l := range distinct {
		group.Go(func() error {
			if err := s.addLayer(ctx, l, r); err != nil {
				return fmt.Errorf("layer %s: %w", l.label(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// pin counts uses of the candidate's layers, so that nobody drops them while
// the image is not there yet. Unpinning drops those that stayed unused.
func (s *Store) pin(c *candidate, by int) {
	s.mu.Lock()
	for _, l := range c.layers {
		s.pins[l.id] += by
		if s.pins[l.id] == 0 {
			delete(s.pins, l.id)
		}
	}
	s.mu.Unlock()
	if by < 0 {
		// What can not be removed now is removed by the next Open.
		_ = s.dropUnused()
	}
}

// addLayer makes sure that a layer is in the store. If somebody else is at it,
// it waits, and if that one gives up, it tries itself.
func (s *Store) addLayer(ctx context.Context, l layerSource, r *reporter) error {
	for {
		s.mu.Lock()
		if s.hasLayer(l.id) {
			s.mu.Unlock()
			r.report(Progress{Phase: PhaseExists, Layer: l.label()})
			return nil
		}
		busy, ok := s.unpacking[l.id]
		if !ok {
			break
		}
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	done := make(chan struct{})
	s.unpacking[l.id] = done
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.unpacking, l.id)
		s.mu.Unlock()
		close(done)
	}()
	if err := s.fetchLayer(ctx, l, r); err != nil {
		return err
	}
	r.report(Progress{Phase: PhaseLayer, Layer: l.label(), TotalBytes: max(l.blob.Size, 0)})
	return nil
}

// fetchLayer brings one layer, trying again if the network was at fault.
func (s *Store) fetchLayer(ctx context.Context, l layerSource, r *reporter) error {
	for try := 1; ; try++ {
		err := s.unpackSource(ctx, l, r)
		var network *networkError
		if err == nil || ctx.Err() != nil || try == layerTries || !errors.As(err, &network) {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}
