package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"torpor/host"
)

// parseRef reads an image name as docker does: without a registry it is the
// default one's, without a tag it is "latest".
func parseRef(ref string, options ...name.Option) (name.Reference, error) {
	r, err := name.ParseReference(ref, options...)
	if err != nil {
		return nil, fmt.Errorf("parse image name %q: %w: %w", ref, host.ErrInvalid, err)
	}
	return r, nil
}

// refKey is the full name under which the index knows a reference.
func refKey(r name.Reference) string { return r.Name() }

// shortRef is the name that people write: without the default registry and
// its default folder.
func shortRef(key string) string {
	rest, ok := strings.CutPrefix(key, name.DefaultRegistry+"/")
	if !ok {
		return key
	}
	if repository, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(repository, "/") {
		return repository
	}
	return rest
}
