package image

import (
	"fmt"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"torpor/host"
)

// Platform says for which machines an image is.
type Platform struct {
	OS           string
	Architecture string // as Go names it
	Variant      string // "v7", or ""
}

// ParsePlatform reads os/arch[/variant]; "" is this machine's platform. Other
// names of common architectures are understood.
func ParsePlatform(s string) (Platform, error) {
	if s == "" {
		return Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return Platform{}, fmt.Errorf("parse platform %q: want os/arch or os/arch/variant: %w", s, host.ErrInvalid)
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

// String returns os/arch[/variant].
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

func (p Platform) normal() Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i686", "x86":
		p.Architecture = "386"
	}
	if p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = "" // the baseline
	}
	return p
}

// fit says how well an image for have runs where want was asked for: 0 not at
// all, higher is better.
func (want Platform) fit(have Platform) int {
	want, have = want.normal(), have.normal()
	switch {
	case want.OS != have.OS || want.Architecture != have.Architecture:
		return 0
	case want.Variant == have.Variant:
		return 100
	case have.Variant == "":
		return 50
	case want.Variant == "":
		// Nothing asked: the lowest variant runs on most machines.
		return 40 - variantNumber(have.Variant)
	case variantNumber(have.Variant) < variantNumber(want.Variant):
		return 20 + variantNumber(have.Variant)
	}
	return 0
}

func variantNumber(v string) int {
	var n int
	if _, err := fmt.Sscanf(v, "v%d", &n); err != nil || n < 0 || n > 19 {
		return 0
	}
	return n
}

// choose returns the manifest of an index that fits best.
func (want Platform) choose(manifests []v1.Descriptor) (v1.Descriptor, error) {
	best, bestFit := v1.Descriptor{}, 0
	var have []string
	for _, d := range manifests {
		if d.Platform == nil {
			if bestFit == 0 && (d.MediaType.IsImage() || d.MediaType.IsIndex()) {
				best, bestFit = d, 1 // says nothing; its config will
			}
			continue
		}
		p := Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant}
		if p.OS != "unknown" { // such as attestations
			have = append(have, p.String())
		}
		if fit := want.fit(p); fit > bestFit {
			best, bestFit = d, fit
		}
	}
	if bestFit == 0 {
		return v1.Descriptor{}, fmt.Errorf("no image for platform %s; there are %s: %w", want, orNone(have), host.ErrNotFound)
	}
	return best, nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// check returns an error unless an image whose config says have can be used.
// Old configs do not say all of it.
func (want Platform) check(have Platform) error {
	if have.OS == "" {
		have.OS = want.OS
	}
	if have.Architecture == "" {
		have.Architecture = want.Architecture
	}
	if want.fit(have) > 0 {
		return nil
	}
	return fmt.Errorf("image is for platform %s, not %s; ask for %s if this machine can run it: %w", have, want, have, host.ErrInvalid)
}
