package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"torpor/host"
)

// dockerManifest is the file that the archives of docker save begin with.
const dockerManifest = "manifest.json"

// dockerImage is one entry of it. Config and Layers are names in the archive.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// findDockerImages lists the images of a docker save archive. It has no
// digests of compressed layers; their content is checked against the config.
func findDockerImages(_ context.Context, files imageFiles, want Platform, _ string) ([]*candidate, error) {
	raw, err := readSmall(files, dockerManifest)
	if err != nil {
		return nil, err
	}
	var list []dockerImage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("decode %s: %w: %w", dockerManifest, host.ErrInvalid, err)
	}
	var out []*candidate
	for _, d := range list {
		c, err := d.candidate(files, want)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (d dockerImage) candidate(files imageFiles, want Platform) (*candidate, error) {
	config, err := readSmall(files, d.Config)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", missingIsCorrupt(err))
	}
	// The config's file name is its digest in all but the oldest archives.
	if digits := strings.TrimSuffix(path.Base(d.Config), ".json"); len(digits) == 64 && isHex(digits) {
		if got := sha256Of(config); got != digestPrefix+digits {
			return nil, fmt.Errorf("config %s has digest %s: %w", d.Config, got, host.ErrCorrupt)
		}
	}
	var sources []layerSource
	for _, name := range d.Layers {
		sources = append(sources, layerSource{
			blob: v1.Descriptor{Size: -1},
			open: func(context.Context) (io.ReadCloser, error) {
				f, _, err := files.open(name)
				return f, missingIsCorrupt(err)
			},
		})
	}
	c, err := newCandidate(config, nil, want, sources)
	if err != nil {
		return nil, err
	}
	for _, tag := range d.RepoTags {
		ref, err := parseRef(tag)
		if err != nil {
			return nil, err
		}
		c.refs = append(c.refs, refKey(ref))
	}
	return c, nil
}

// missingIsCorrupt marks a file that an archive speaks of and does not have.
func missingIsCorrupt(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", host.ErrCorrupt, err)
	}
	return err
}
