package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"torpor/host"
)

// PullOptions says how an image is pulled. The zero value is usable.
type PullOptions struct {
	Platform string          // os/arch[/variant]; "": this machine's
	Policy   host.PullPolicy // "" and PullMissing ask the registry only for what is not here
	Progress func(Progress)  // may be nil; must not call the store

	// PlainHTTP names registries, as host:port or host, that may be asked
	// without TLS. Those on a loopback address always may.
	PlainHTTP []string

	Keychain  authn.Keychain    // nil: the docker or podman login files of the user
	Transport http.RoundTripper // nil: one that follows the proxy variables
}

// Pull brings the image that ref names into the store and gives it that name.
// Layers that are here already are not fetched; the others are fetched a few
// at a time and each is unpacked while it arrives. If it fails, nothing stays.
//
// It is host.ErrNotFound if the registry has no such image (or, under
// PullNever, the store), and host.ErrCorrupt if something has not the digest
// or size that its reference says.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	img, err := s.pull(ctx, ref, o)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	return img, nil
}

func (s *Store) pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	want, err := ParsePlatform(o.Platform)
	if err != nil {
		return Image{}, err
	}
	parsed, err := parsePlainRef(ref, o.PlainHTTP)
	if err != nil {
		return Image{}, err
	}
	if o.Policy != host.PullAlways {
		img, err := s.local(ref, want)
		if err == nil || o.Policy == host.PullNever {
			return img, err
		}
	}
	report := &reporter{ref: ref, call: o.Progress}
	report.report(Progress{Phase: PhaseResolve})
	reg, err := newRegistry(parsed, o)
	if err != nil {
		return Image{}, err
	}
	defer reg.idle()
	c, err := reg.find(ctx, parsed, want)
	if err != nil {
		return Image{}, explain(err, parsed)
	}
	c.refs = []string{refKey(parsed)}
	img, err := s.install(ctx, c, report)
	return img, explain(err, parsed)
}

// local returns the image of that name if it is here and for that platform.
func (s *Store) local(ref string, want Platform) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, key, err := s.findLocked(ref)
	if err != nil {
		return Image{}, err
	}
	if key == "" {
		return Image{}, fmt.Errorf("find image %s: no name: %w", ref, host.ErrNotFound)
	}
	if err := want.check(r.config.platform()); err != nil {
		return Image{}, err
	}
	return s.imageLocked(r), nil
}

// parsePlainRef parses ref so that the client tries plain http where it may.
func parsePlainRef(ref string, plain []string) (name.Reference, error) {
	parsed, err := parseRef(ref)
	if err != nil || !plainAllowed(parsed.Context().RegistryStr(), plain) {
		return parsed, err
	}
	return parseRef(ref, name.Insecure)
}

// maxIndexDepth is how many indexes may lead to a manifest: one for platforms,
// and some tools put one around it.
const maxIndexDepth = 3

// find follows a reference to the manifest for a platform and reads the config.
func (r *registry) find(ctx context.Context, ref name.Reference, want Platform) (*candidate, error) {
	var top string
	for range maxIndexDepth + 1 {
		d, err := r.puller.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		if top == "" {
			top = d.Digest.String()
		}
		if len(d.Manifest) > maxConfigBytes {
			return nil, fmt.Errorf("manifest %s has %d bytes, at most %d are read: %w", d.Digest, len(d.Manifest), maxConfigBytes, host.ErrInvalid)
		}
		m, err := parseManifest(d.Manifest, d.MediaType)
		if err != nil {
			return nil, err
		}
		if m.index == nil {
			c, err := m.candidate(ctx, d.Manifest, want, r.blob)
			if err != nil {
				return nil, err
			}
			c.digest = top
			return c, nil
		}
		chosen, err := want.choose(m.index)
		if err != nil {
			return nil, err
		}
		ref = r.repository.Digest(chosen.Digest.String())
	}
	return nil, fmt.Errorf("more than %d indexes lead to the image: %w", maxIndexDepth, host.ErrInvalid)
}

// manifest is either a manifest or an index.
type manifest struct {
	image *v1.Manifest
	index []v1.Descriptor
}

// parseManifest decodes a manifest or an index. What it is it says itself;
// the media type that came with it is used if it does not.
func parseManifest(raw []byte, mediaType types.MediaType) (*manifest, error) {
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(raw, &probe); err != nil {
		return nil, fmt.Errorf("decode manifest: %w: %w", host.ErrInvalid, err)
	}
	if probe.SchemaVersion == 1 || mediaType == types.DockerManifestSchema1 || mediaType == types.DockerManifestSchema1Signed {
		return nil, fmt.Errorf("manifest is of docker's schema 1, which is obsolete: %w", host.ErrUnsupported)
	}
	if probe.MediaType == "" {
		probe.MediaType = mediaType
	}
	if probe.MediaType.IsIndex() || !probe.MediaType.IsImage() && probe.Manifests != nil {
		index, err := v1.ParseIndexManifest(strings.NewReader(string(raw)))
		if err != nil {
			return nil, fmt.Errorf("decode index: %w: %w", host.ErrInvalid, err)
		}
		return &manifest{index: append([]v1.Descriptor{}, index.Manifests...)}, nil
	}
	image, err := v1.ParseManifest(strings.NewReader(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("decode manifest: %w: %w", host.ErrInvalid, err)
	}
	if image.Config.Digest == (v1.Hash{}) {
		return nil, fmt.Errorf("decode manifest: it names no config: %w", host.ErrInvalid)
	}
	return &manifest{image: image}, nil
}

// opener opens a blob of wherever the manifest came from.
type opener func(context.Context, v1.Descriptor) (io.ReadCloser, error)

// candidate reads the config and lists the layers.
func (m *manifest) candidate(ctx context.Context, raw []byte, want Platform, open opener) (*candidate, error) {
	if !m.image.Config.MediaType.IsConfig() && m.image.Config.MediaType != "" {
		return nil, fmt.Errorf("manifest is not of an image but of %s: %w", m.image.Config.MediaType, host.ErrUnsupported)
	}
	config, err := readConfig(ctx, m.image.Config, open)
	if err != nil {
		return nil, err
	}
	var sources []layerSource
	for _, d := range m.image.Layers {
		if strings.HasSuffix(string(d.MediaType), "+encrypted") {
			return nil, fmt.Errorf("layer %s is encrypted: %w", d.Digest, host.ErrUnsupported)
		}
		sources = append(sources, layerSource{blob: d, open: func(ctx context.Context) (io.ReadCloser, error) {
			if len(d.Data) > 0 {
				return io.NopCloser(strings.NewReader(string(d.Data))), nil
			}
			return open(ctx, d)
		}})
	}
	return newCandidate(config, raw, want, sources)
}

func readConfig(ctx context.Context, d v1.Descriptor, open opener) ([]byte, error) {
	if len(d.Data) > 0 {
		return readBlob(strings.NewReader(string(d.Data)), d)
	}
	for try := 1; ; try++ {
		raw, err := readConfigOnce(ctx, d, open)
		var network *networkError
		if err == nil || try == layerTries || ctx.Err() != nil || !errors.As(err, &network) {
			return raw, err
		}
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
	}
}

func readConfigOnce(ctx context.Context, d v1.Descriptor, open opener) ([]byte, error) {
	body, err := open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", d.Digest, err)
	}
	defer body.Close()
	raw, err := readBlob(body, d)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return raw, nil
}
