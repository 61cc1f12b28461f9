package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"torpor/host"
)

// layoutIndex is the file that an OCI image layout begins with.
const layoutIndex = "index.json"

// Annotations that name an image in a layout. The first is a full name, the
// second is often only a tag.
const (
	fullNameAnnotation = "io.containerd.image.name"
	refNameAnnotation  = "org.opencontainers.image.ref.name"
)

// findLayoutImages lists the images of an OCI image layout: for each name in
// the index the one for the platform.
func findLayoutImages(ctx context.Context, files imageFiles, want Platform, baseName string) ([]*candidate, error) {
	raw, err := readSmall(files, layoutIndex)
	if err != nil {
		return nil, err
	}
	top, err := parseManifest(raw, types.OCIImageIndex)
	if err != nil {
		return nil, err
	}
	if top.index == nil {
		return nil, fmt.Errorf("%s is no index: %w", layoutIndex, host.ErrInvalid)
	}
	var out []*candidate
	for _, group := range groupByName(top.index) {
		chosen, err := want.choose(group.manifests)
		if err != nil {
			return nil, err
		}
		c, err := findLayoutImage(ctx, files, chosen, want)
		if err != nil {
			return nil, err
		}
		if group.name != "" {
			ref, err := layoutRef(group.name, baseName)
			if err != nil {
				return nil, err
			}
			c.refs = []string{ref}
		}
		out = append(out, c)
	}
	return out, nil
}

type namedManifests struct {
	name      string
	manifests []v1.Descriptor
}

func groupByName(manifests []v1.Descriptor) []namedManifests {
	var groups []namedManifests
	at := map[string]int{}
	for _, d := range manifests {
		name := cmp.Or(d.Annotations[fullNameAnnotation], d.Annotations[refNameAnnotation])
		i, ok := at[name]
		if !ok {
			i = len(groups)
			at[name] = i
			groups = append(groups, namedManifests{name: name})
		}
		groups[i].manifests = append(groups[i].manifests, d)
	}
	return groups
}

// layoutRef is the index key for a name in a layout. A bare tag belongs to an
// image named as the file is.
func layoutRef(name, baseName string) (string, error) {
	if !strings.ContainsAny(name, "/:") {
		name = baseName + ":" + name
	}
	ref, err := parseRef(name)
	if err != nil {
		return "", fmt.Errorf("give the image a name: %w", err)
	}
	return refKey(ref), nil
}

// findLayoutImage follows one entry of the index to a manifest.
func findLayoutImage(ctx context.Context, files imageFiles, d v1.Descriptor, want Platform) (*candidate, error) {
	open := func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) { return openBlob(files, d) }
	top := d.Digest.String()
	for range maxIndexDepth + 1 {
		raw, err := readConfig(ctx, d, open)
		if err != nil {
			return nil, err
		}
		m, err := parseManifest(raw, d.MediaType)
		if err != nil {
			return nil, err
		}
		if m.index == nil {
			c, err := m.candidate(ctx, raw, want, open)
			if err != nil {
				return nil, err
			}
			c.digest = top
			return c, nil
		}
		if d, err = want.choose(m.index); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d indexes lead to the image: %w", maxIndexDepth, host.ErrInvalid)
}

// openBlob opens a blob of a layout. Digests were checked for their form when
// they were decoded.
func openBlob(files imageFiles, d v1.Descriptor) (io.ReadCloser, error) {
	f, _, err := files.open("blobs/" + d.Digest.Algorithm + "/" + d.Digest.Hex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s is not there: %w: %w", d.Digest, host.ErrCorrupt, err)
	}
	return f, err
}
